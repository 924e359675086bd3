"""The MLflow run and the logged model of a judged merge, one of each however often it is registered."""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from tasks.base.digests import file_digests
from tasks.base.json_digest import digest_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput

MERGE_TAG = "loreline.merge"
JUDGEMENT_TAG = "loreline.judgement"
"""What was merged, what it was compared with and what came out: what is registered once."""
GAIN, SECONDS, BYTES = "gain", "seconds", "bytes"
"""Metrics beside scores and differences: MLflow shows what has no slash in its name first."""
OLDEST_FIRST = ["attributes.start_time ASC"]

Thing = TypeVar("Thing")


def only(
    search: Callable[[], list[Thing]], create: Callable[[], Thing], remove: Callable[[Thing], object]
) -> Thing:
    """Return the oldest thing that `search` finds, creating it first when there is none.

    A time-out after a success, or another machine, can leave more than one: all then keep the oldest.
    """
    found = search()
    if not found:
        created = create()
        found = search() or [created]
    for surplus in found[1:]:
        remove(surplus)
    return found[0]


class RunRecords(NamedTuple):
    """What a run records."""

    metrics: Mapping[str, float]
    params: Mapping[str, str]
    tags: Mapping[str, str]
    datasets: Sequence["DatasetInput"]
    files: Mapping[str, Sequence[Path]]
    """By artifact directory."""


def find_run(
    client: "MlflowClient", experiment: str, tags: Mapping[str, str], title: str, began: float | None
) -> Any:
    """Return the one run that records the judgement in these tags, finished or not; a new one began then."""
    start = None if began is None else int(began * 1000)
    return only(
        lambda: list(client.search_runs([experiment], judged_as(tags), order_by=OLDEST_FIRST)),
        lambda: client.create_run(experiment, start, _key(tags), title),
        lambda run: client.delete_run(run.info.run_id),
    )


def find_model(
    client: "MlflowClient",
    experiment: str,
    tags: Mapping[str, str],
    run_id: str,
    name: str,
    params: Mapping[str, str],
) -> Any:
    """Return the one logged model of the judgement in these tags, ready or not; a new one gets this name."""
    oldest_first = [{"field_name": "creation_timestamp", "ascending": True}]
    return only(
        lambda: list(client.search_logged_models([experiment], judged_as(tags), order_by=oldest_first)),
        lambda: client.create_logged_model(
            experiment, name=name, source_run_id=run_id, tags=_key(tags), params=dict(params)
        ),
        lambda model: client.delete_logged_model(model.model_id),
    )


def record_run(client: "MlflowClient", run: Any, model_id: str, records: RunRecords) -> None:
    """Write what a run lacks, and finish it; a finished one stays.

    What a killed process left is written again where it differs: the evaluation may be a newer one that says
    the same in other words. MLflow never changes a parameter.
    """
    from mlflow.entities import LoggedModelOutput, Metric, Param, RunTag

    if run.info.status == "FINISHED":
        return
    now, run_id = int(time.time() * 1000), run.info.run_id
    client.log_batch(
        run_id,
        [
            Metric(key, value, now, 0, model_id=model_id if key.startswith("merge/") else None)
            for key, value in records.metrics.items()
            if run.data.metrics.get(key) != value
        ],
        [Param(key, value) for key, value in records.params.items() if key not in run.data.params],
        [RunTag(key, value) for key, value in records.tags.items() if run.data.tags.get(key) != value],
    )
    if records.datasets:
        client.log_inputs(run_id, list(records.datasets))
    if model_id not in [output.model_id for output in (run.outputs.model_outputs if run.outputs else [])]:
        client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])
    for directory, paths in records.files.items():
        _attach(client, run, directory, paths)
    client.set_terminated(run_id)


def mlflow_name(text: str) -> str:
    """Return `text` as a name that MLflow accepts for metrics, parameters and tags."""
    parts = re.sub(r"[^/\w.\- :]", "_", text).split("/")
    return "/".join(part for part in parts if part.strip("."))[:250].rstrip("/")


def _attach(client: "MlflowClient", run: Any, directory: str, paths: Sequence[Path]) -> None:
    """Upload files, unless the tag that is set after a complete upload has their digest."""
    state = digest_of(
        [(file.name, file.digest) for path in paths for file in file_digests(path.parent, [path])]
    )
    if run.data.tags.get(f"loreline.{directory}") != state:
        for path in paths:
            client.log_artifact(run.info.run_id, str(path), directory)
        client.set_tag(run.info.run_id, f"loreline.{directory}", state)


def judged_as(tags: Mapping[str, str]) -> str:
    """Return MLflow's filter for what carries the judgement in these tags."""
    return f"tags.`{JUDGEMENT_TAG}` = '{tags[JUDGEMENT_TAG]}'"


def _key(tags: Mapping[str, str]) -> dict[str, str]:
    return {key: tags[key] for key in (MERGE_TAG, JUDGEMENT_TAG)}
