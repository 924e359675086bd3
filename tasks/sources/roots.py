"""Where training runs appear: globs of output directories, Hub repositories, MLflow experiments."""

import re
from collections.abc import Iterable, Iterator
from glob import glob, has_magic
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.base.errors import BadInput
from tasks.base.secrets import without_secrets
from tasks.checkpoints.layout import numbered_checkpoints
from tasks.parameters.registration import RegisterParams
from tasks.registry.store import connect, mlflow_errors
from tasks.sources.addresses import HUB, MLFLOW, normal_address
from tasks.sources.mlflow_address import PATH, Address
from tasks.sources.mlflow_download import checkpoint_names, folder_of

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = re.compile(rf"mlflow:/experiments/(?P<name>{PATH})/?")
LOGGED_UNDER = "checkpoints"


def sources_in(roots: Iterable[str], root: Path, registry: RegisterParams) -> list[str]:
    """List the sources that the roots hold now, sorted, each once; relative globs start at `root`.

    Raises BadInput for a root that cannot be used, Unavailable when MLflow does not answer.
    """
    return sorted(
        {normal_address(source, root) for each in roots for source in _in_root(each, root, registry)}
    )


def _in_root(each: str, root: Path, registry: RegisterParams) -> Iterator[str]:
    if each.startswith(HUB):
        yield each
    elif each.startswith(MLFLOW):
        yield from _in_experiment(each, registry)
    elif not has_magic(each) and not (root / each).is_dir():
        raise BadInput(f"watch.roots: {each}: no such directory; correct it, or write a glob such as runs/*")
    else:
        found = glob(each, root_dir=root, recursive=True)  # noqa: PTH207 (Path.glob walks hidden ones too)
        yield from (path for path in found if _holds_checkpoints(root / path))


def _holds_checkpoints(directory: Path) -> bool:
    try:
        return bool(numbered_checkpoints(directory))
    except OSError:  # no directory, not ours to read, or gone since it was listed
        return False


def _in_experiment(each: str, registry: RegisterParams) -> list[str]:
    if not (match := EXPERIMENT.fullmatch(each)):  # not quoted: it could hold a password
        raise BadInput("watch.roots: not an MLflow experiment; write mlflow:/experiments/NAME[/PATH]")
    client = connect(registry)
    with mlflow_errors(client.tracking_uri):
        experiment, path = _find(client, match["name"])
        runs = [(run, Address(run.info.run_id, path)) for run in _active_runs(client, experiment)]
        return [str(place) for run, place in runs if checkpoint_names(client, folder_of(run, place))]


def _find(client: "MlflowClient", name: str) -> tuple[str, str]:
    """Return the id of the experiment and the path in NAME[/PATH]; a name may hold slashes itself."""
    parts = name.split("/")
    for count in range(len(parts), 0, -1):
        found = client.get_experiment_by_name("/".join(parts[:count]))
        if found is not None and found.lifecycle_stage == "active":
            return str(found.experiment_id), "/".join(parts[count:]) or LOGGED_UNDER
    raise BadInput(
        f"watch.roots: mlflow:/experiments/{name}: no such experiment in "
        f"{without_secrets(client.tracking_uri)}; correct the name, or register.tracking_uri"
    )


def _active_runs(client: "MlflowClient", experiment: str) -> Iterator[Any]:
    token: str | None = None
    while token != "":
        page = client.search_runs([experiment], page_token=token)
        yield from page
        token = page.token or ""
