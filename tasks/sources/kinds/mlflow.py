"""Training runs among the artifacts of MLflow runs, mlflow:/runs/RUN_ID/PATH, kept in the user's cache."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tasks.base.directories import cache_dir
from tasks.base.errors import BadInput, without_secrets
from tasks.base.json_digest import digest_of
from tasks.parameters.fetch import FetchParams
from tasks.parameters.registration import RegisterParams
from tasks.registry.files import local_directory
from tasks.registry.store import connect, mlflow_errors
from tasks.sources.mlflow_artifacts import SEGMENT, Sizes, bring, checkpoint_names, wanted_sizes
from tasks.sources.readiness import complete_upload
from tasks.sources.run_status import RunStatus, newest_change, status_of
from tasks.sources.source import FetchedCheckpoint, FetchedRun, RunSource

if TYPE_CHECKING:
    from mlflow import MlflowClient

MLFLOW = "mlflow:/"
PATH = rf"{SEGMENT}(?:/{SEGMENT})*"
MLFLOW_ADDRESS = re.compile(rf"{MLFLOW}runs/(?P<run>[A-Za-z0-9][\w-]*)/(?P<path>{PATH})/?")
EXPERIMENT = re.compile(rf"{MLFLOW}experiments/(?P<name>{PATH})/?")
LOGGED_UNDER = "checkpoints"
ENDS = {"FINISHED": "finished", "FAILED": "failed", "KILLED": "was killed"}


class MlflowSource(RunSource):
    """The checkpoint-N directories below mlflow:/runs/RUN_ID/PATH, in the MLflow that the registry names."""

    def matches(self, address: str) -> bool:
        """Match what starts with mlflow:/."""
        return address.startswith(MLFLOW)

    def run_name(self, address: str) -> str:
        """Return the first characters of the MLflow run's id."""
        return address.removeprefix(f"{MLFLOW}runs/").partition("/")[0][:8]

    def observe(self, address: str, quiet_for: float, registry: RegisterParams) -> RunStatus:
        """Return the status from the names and sizes that MLflow lists, and from the status of its run.

        A run in state RUNNING has ended when its files are old, where their times can be read.
        """
        place, client = address_of(address), connect(registry)
        with mlflow_errors(client.tracking_uri):
            run = _run_at(client, place)
            listed = _checkpoints_at(client, run, place)
        digest, status = digest_of([run.info.end_time, listed]), f"the MLflow run is {run.info.status}"
        directory = local_directory(_folder_of(run, place))
        if run.info.status in ENDS:
            return RunStatus(digest, True, f"the MLflow run {ENDS[run.info.status]}")
        if directory is None:
            return RunStatus(digest, False, f"still training: {status}")
        return status_of(digest, False, status, time.time() - newest_change(directory), quiet_for)

    def fetch(self, params: FetchParams, registry: RegisterParams) -> FetchedRun:
        """Bring every checkpoint into the cache, unless it is there.

        Files of a store on this machine are linked.
        """
        place, client = address_of(params.address), connect(registry)
        with mlflow_errors(client.tracking_uri):
            run = _run_at(client, place)
            found = [
                FetchedCheckpoint(step, name, _bring(client, run, place, name, files), f"{place}/{name}")
                for step, name, files in _checkpoints_at(client, run, place)
            ]
        return complete_upload(found)

    def restore(self, address: str) -> Path:
        """Return the cached directory of mlflow:/runs/RUN_ID/PATH/checkpoint-N; MLflow is not asked."""
        run, _, name = address.rpartition("/")
        directory = address_of(run).cached / name
        if not directory.is_dir():
            raise BadInput(
                address, "is not kept here any more", "loreline fetch --refresh downloads it again"
            )
        return directory

    def runs_in(self, root: str, project: Path, registry: RegisterParams) -> list[str]:
        """List the active runs of mlflow:/experiments/NAME[/PATH] that have checkpoints under PATH."""
        if not (match := EXPERIMENT.fullmatch(root)):  # not quoted: it could hold a password
            raise BadInput("watch.roots", "not an MLflow experiment", "write mlflow:/experiments/NAME[/PATH]")
        client = connect(registry)
        with mlflow_errors(client.tracking_uri):
            experiment, path = _experiment(client, match["name"])
            runs = [(run, Address(run.info.run_id, path)) for run in _active_runs(client, experiment)]
            return [str(place) for run, place in runs if checkpoint_names(client, _folder_of(run, place))]


class Address(NamedTuple):
    """A directory among the artifacts of an MLflow run."""

    run_id: str
    path: str

    @property
    def cached(self) -> Path:
        """Return where its checkpoints are kept, in the user's cache."""
        return cache_dir() / "mlflow" / digest_of([self.run_id, self.path])[:32]

    def __str__(self) -> str:
        return f"{MLFLOW}runs/{self.run_id}/{self.path}"


def address_of(text: str) -> Address:
    """Read mlflow:/runs/RUN_ID/PATH; raises BadInput for anything else."""
    match = MLFLOW_ADDRESS.fullmatch(text)
    if not match:  # not quoted: it could hold a password
        raise BadInput(
            "fetch.source",
            "not an MLflow address",
            "write mlflow:/runs/RUN_ID/PATH, where PATH is what the checkpoints were logged under",
        )
    return Address(match["run"], match["path"])


def _run_at(client: "MlflowClient", address: Address) -> Any:
    """Return the MLflow run of an address; raises BadInput when there is none, or it was deleted."""
    from mlflow.exceptions import MlflowException

    store = without_secrets(client.tracking_uri)
    try:
        run = client.get_run(address.run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise BadInput(
            "fetch.source", f"{address}: no such run in {store}", "check the run id, or register.tracking_uri"
        ) from None
    if run.info.lifecycle_stage != "active":
        raise BadInput(
            "fetch.source",
            f"{address}: the run is deleted",
            f"bring it back with mlflow runs restore --run-id {address.run_id}",
        )
    return run


def _folder_of(run: Any, address: Address) -> str:
    """Return the URI of an address among the artifacts of its run."""
    return f"{run.info.artifact_uri}/{address.path}"


def _checkpoints_at(client: "MlflowClient", run: Any, address: Address) -> list[tuple[int, str, Sizes]]:
    """List step, name and wanted files of the checkpoint-N below an address; BadInput when there is none."""
    folder = _folder_of(run, address)
    if not (names := checkpoint_names(client, folder)):
        raise BadInput(
            "fetch.source",
            f"{address}: holds no checkpoint-N directory",
            "name what they were logged under, as checkpoints in "
            "mlflow.log_artifacts(output_dir, 'checkpoints')",
        )
    return [(step, name, wanted_sizes(client, f"{folder}/{name}")) for step, name in names]


def _bring(client: "MlflowClient", run: Any, address: Address, name: str, files: Sizes) -> Path:
    """Bring one checkpoint; a run that was resumed has another end time, and is read again."""
    made_from = digest_of([address.run_id, address.path, name, run.info.end_time, files])
    target = address.cached / name
    bring(client, f"{_folder_of(run, address)}/{name}", files, target, made_from)
    return target


def _experiment(client: "MlflowClient", name: str) -> tuple[str, str]:
    """Return the id of the experiment and the path in NAME[/PATH]; a name may hold slashes itself."""
    parts = name.split("/")
    for count in range(len(parts), 0, -1):
        found = client.get_experiment_by_name("/".join(parts[:count]))
        if found is not None and found.lifecycle_stage == "active":
            return str(found.experiment_id), "/".join(parts[count:]) or LOGGED_UNDER
    raise BadInput(
        "watch.roots",
        f"{MLFLOW}experiments/{name}: no such experiment in {without_secrets(client.tracking_uri)}",
        "correct the name, or register.tracking_uri",
    )


def _active_runs(client: "MlflowClient", experiment: str) -> Iterator[Any]:
    token: str | None = None
    while token != "":
        page = client.search_runs([experiment], page_token=token)
        yield from page
        token = page.token or ""
