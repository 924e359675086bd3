"""Listing the merged runs in a registry, newest first."""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any

from tasks.base.records.record import Record
from tasks.base.records.training_run import SAMPLED
from tasks.parameters.registration import RegisterParams
from tasks.registry.runs import BYTES, MERGE_TAG, SECONDS, mlflow_name
from tasks.registry.store import connect, mlflow_errors
from tasks.registry.tags import unpacked
from tasks.registry.versions import GIT_REVISION, GIT_TAG, PRUNED, PUSH, RUN_DIGEST, VERDICT, aliases

if TYPE_CHECKING:
    from mlflow import MlflowClient

PAGE = 500
RUN_NAME = "loreline.run"
LATEST = 2.5e11
"""Seconds since 1970 to a year that dates can have: others may have written into the store."""


class MergedRun(Record):
    """A merged run, from its model version's tags; None where a tag is missing."""

    when: float
    """When it was registered, in seconds since 1970."""
    model: str
    """models:/name/version"""
    aliases: tuple[str, ...]
    run: str | None
    method: str | None
    verdict: str | None
    primary: str | None
    """The metric that decided, as task/metric."""
    merge: float | None
    """The merge's value of it."""
    against: str | None
    """The role of the model that it was compared with."""
    weighed: float | None
    """That model's value of it."""
    tag: str | None
    """The git tag."""
    revision: str | None
    """The git commit."""
    push: str | None
    """off, pending or done"""
    dvc: str | None = None
    """DVC's hash of the merge's directory."""
    gain: str | None = None
    """The deciding gain in words; None for versions of 0.1.0."""
    report: str | None = None
    """Where its report is."""
    seconds: float | None = None
    """How long the merge took."""
    bytes: float | None = None
    """Of its files."""
    pruned: bool = False
    """Its weights and its git tag were removed."""

    @property
    def number(self) -> int:
        """The version's."""
        return int(self.model.rpartition("/")[2])


def merged_runs(params: RegisterParams, limit: int | None = None) -> list[MergedRun]:
    """Return the merged runs of the registered model, the newest first, at most `limit`.

    One query for each PAGE of versions and runs. Raises Unavailable when MLflow does not answer.
    """
    client = connect(params)
    with mlflow_errors(client.tracking_uri):
        versions = list(islice(our_versions(client, params.name), limit))
        named: dict[int, list[str]] = {}
        for alias, number in sorted(aliases(client, params.name).items()):
            named.setdefault(number, []).append(alias)
        metrics = _metrics(client, params.name, [version.run_id for version in versions if version.run_id])
    return [
        _merged_run(version, named.get(int(version.version), []), metrics.get(version.run_id, {}))
        for version in versions
    ]


def newest_inputs_by_sha256(params: RegisterParams) -> set[tuple[int, str]]:
    """Return step and digest of the newest input of each version by a release that digested whole runs.

    Raises Unavailable when MLflow does not answer.
    """
    client, found = connect(params), set()
    with mlflow_errors(client.tracking_uri):
        every = [unpacked(version.tags) for version in our_versions(client, params.name)]
    for facts in every:
        if facts.get(RUN_DIGEST, SAMPLED).startswith(SAMPLED):
            continue
        with suppress(KeyError, ValueError, IndexError, TypeError):  # cut, or written by somebody else
            step, digest = (json.loads(facts[key])[-1] for key in ("loreline.steps", "loreline.checkpoints"))
            found.add((int(step), str(digest)))
    return found


def our_versions(client: "MlflowClient", name: str) -> Iterator[Any]:
    """Yield the versions that Loreline registered, the newest first."""
    quote, token = '"' if "'" in name else "'", None
    while True:
        page = client.search_model_versions(
            f"name = {quote}{name}{quote}",
            max_results=PAGE,
            order_by=["creation_timestamp DESC", "version_number DESC"],
            page_token=token,
        )
        yield from (version for version in page if MERGE_TAG in unpacked(version.tags))
        token = page.token
        if not token:
            return


def earlier_runs(params: RegisterParams, number: int) -> set[str]:
    """Return the names of the training runs whose versions have lower numbers, pruned ones included.

    A number is given after all lower ones, so every machine sees the same.
    Raises Unavailable when MLflow does not answer.
    """
    client = connect(params)
    with mlflow_errors(client.tracking_uri):
        earlier = [each for each in our_versions(client, params.name) if int(each.version) < number]
    return {each.tags[RUN_NAME] for each in earlier if RUN_NAME in each.tags}


def _metrics(client: "MlflowClient", name: str, run_ids: list[str]) -> dict[str, dict[str, float]]:
    """Return the metrics of MLflow runs of the model's experiment, by their ids."""
    found: dict[str, dict[str, float]] = {}
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        return found
    for first in range(0, len(run_ids), PAGE):
        listed = ", ".join(f"'{run_id}'" for run_id in run_ids[first : first + PAGE])
        wanted = f"attributes.run_id IN ({listed})"
        runs = client.search_runs([experiment.experiment_id], wanted, max_results=PAGE)
        found |= {run.info.run_id: run.data.metrics for run in runs}
    return found


def _merged_run(version: Any, named: list[str], metrics: Mapping[str, float]) -> MergedRun:
    tags = unpacked(version.tags)
    primary, against = tags.get("loreline.primary"), tags.get("loreline.against")
    return MergedRun(
        when=min(max(version.creation_timestamp / 1000, 0), LATEST),
        model=f"models:/{version.name}/{version.version}",
        aliases=tuple(named),
        run=tags.get(RUN_NAME),
        method=tags.get("loreline.method"),
        verdict=tags.get(VERDICT),
        primary=primary,
        merge=metrics.get(mlflow_name(f"merge/{primary}")),
        against=against,
        weighed=metrics.get(mlflow_name(f"{against}/{primary}")),
        gain=tags.get("loreline.gain"),
        report=tags.get("loreline.report"),
        seconds=metrics.get(SECONDS),
        bytes=metrics.get(BYTES),
        tag=tags.get(GIT_TAG),
        pruned=PRUNED in tags,
        revision=tags.get(GIT_REVISION),
        dvc=tags.get("loreline.dvc"),
        push=tags.get(PUSH),
    )
