"""Records of a merge: what it was made from, and what was measured on the way."""

import re
from collections.abc import Sequence
from typing import Any, Self

from pydantic import Field

from tasks.base.hub_address import HUB
from tasks.base.json_digest import digest_of
from tasks.base.measures import DeviationSummary, TensorMeasures
from tasks.base.passage import Passage
from tasks.base.records.model import AdapterBase, digest_on
from tasks.base.records.record import FileDigest, Record, absent, is_empty

HUB_MODEL = re.compile(rf"{HUB}([^@/]+/[^@/]+)")


class MergeInput(Record):
    """An input of a merge."""

    path: str
    step: int
    digest: str
    run: str = Field(default="", exclude_if=is_empty)
    """Name of its run, where several are merged."""

    @property
    def label(self) -> str:
        """Its name among the inputs."""
        return f"{self.run} step {self.step}".strip()


class CalibrationText(Record):
    """The texts that a merge measured its checkpoints on."""

    items: int
    sha256: str

    @classmethod
    def of(cls, texts: Sequence[Passage]) -> Self | None:
        """Describe texts; None where there are none."""
        return cls(items=len(texts), sha256=digest_of(list(texts))) if texts else None


class MergeReport(Record):
    """What a merge did: written into the model directory as merge.json."""

    method: str
    parameters: dict[str, Any]
    inputs: tuple[MergeInput, ...]
    outputs: tuple[FileDigest, ...]
    notes: tuple[str, ...]
    tensors: dict[str, TensorMeasures]
    """What was measured on each tensor."""
    base: AdapterBase | None = Field(default=None, exclude_if=absent)
    """The model that the merge is an adapter of, where that is known; None for a whole model."""
    calibration: CalibrationText | None = Field(default=None, exclude_if=absent)
    """None where the method needs no text."""

    @property
    def hub_models(self) -> list[str]:
        """The Hub's repositories among what it was made from: an adapter's base, else the checkpoints."""
        addresses = [self.base.address] if self.base else [source.path for source in self.inputs]
        return sorted({match[1] for match in map(HUB_MODEL.match, addresses) if match})

    @property
    def deviations(self) -> dict[str, DeviationSummary]:
        """Deviations of the checkpoints, tensor by tensor; integers have no task vectors."""
        return {name: own.deviation for name, own in self.tensors.items() if own.deviation}

    @property
    def digest(self) -> str:
        """Identity of the merged model."""
        return digest_on(self.base, self.outputs)
