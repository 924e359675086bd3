"""The section watch: where training runs appear, and when one counts as ended."""

from typing import Annotated

from pydantic import Field

from tasks.parameters.address import no_secret
from tasks.parameters.section import Section


class WatchParams(Section):
    """Where training runs appear, and when one counts as ended."""

    roots: tuple[Annotated[str, no_secret], ...] = ()
    """Globs of output directories (runs/*), hf://org/name[@step*], mlflow:/experiments/NAME[/PATH], and
    folders of an object store with runs in them (s3://bucket/runs)."""
    quiet_for: Annotated[float, Field(ge=0)] = 1800.0
    """Seconds without a change after which a run has ended although its training state does not say so."""
    notify: Annotated[str | None, Field(pattern=r"^[a-z0-9-]+/[a-z0-9-]+$")] = None
    """A notification block of Prefect's, TYPE/NAME (slack-webhook/merges): `loreline serve` and
    `loreline notify` make automations that send what happens there."""
    merge_expected_within: Annotated[float | None, Field(gt=0)] = None
    """Days without a completed merge after which there is a notification; unset: never."""
