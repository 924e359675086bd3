"""Checkpoints among the artifacts of an MLflow run: listed, downloaded once into the cache, checked there."""

import re
import shutil
import time
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.base.errors import BadInput, Unavailable
from tasks.base.publish import is_published, link_or_copy, publishing
from tasks.base.records import digest_of
from tasks.base.secrets import without_secrets
from tasks.checkpoints.layout import LORELINE_FILES, inside
from tasks.parameters.registration import RegisterParams
from tasks.registry.files import local_directory
from tasks.registry.store import connect, mlflow_errors
from tasks.sources.hub_download import KINDS, RemoteCheckpoint
from tasks.sources.mlflow_address import SEGMENT, Address, address_of

if TYPE_CHECKING:
    from mlflow import MlflowClient

Sizes = Mapping[str, int | None]
"""File name → size in bytes; None where the store does not tell."""
WAITS_S = (1.0, 2.0, 4.0)
PARTIAL = ".partial"


def download_mlflow_run(source: str, registry: RegisterParams) -> list[RemoteCheckpoint]:
    """Bring every checkpoint of mlflow:/runs/RUN_ID/PATH into the cache; what is there already stays.

    Where the store keeps its files on this machine they are linked. Raises BadInput when there is no such
    thing to read, Unavailable when MLflow does not answer.
    """
    address, client = address_of(source), connect(registry)
    with mlflow_errors(client.tracking_uri):
        run = run_at(client, address)
        return [
            RemoteCheckpoint(step, name, _bring(client, run, address, name, files), f"{address}/{name}")
            for step, name, files in checkpoints_at(client, run, address)
        ]


def run_at(client: "MlflowClient", address: Address) -> Any:
    """Return the MLflow run of an address; raises BadInput when there is none, or it was deleted."""
    from mlflow.exceptions import MlflowException

    store = without_secrets(client.tracking_uri)
    try:
        run = client.get_run(address.run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise BadInput(
            f"fetch.source: {address}: no such run in {store}; check the run id, or register.tracking_uri"
        ) from None
    if run.info.lifecycle_stage != "active":
        raise BadInput(
            f"fetch.source: {address}: the run is deleted; "
            f"bring it back with mlflow runs restore --run-id {address.run_id}"
        )
    return run


def checkpoints_at(client: "MlflowClient", run: Any, address: Address) -> list[tuple[int, str, Sizes]]:
    """List step, name and wanted files of the checkpoint-N below an address; BadInput when there is none."""
    folder = folder_of(run, address)
    if not (names := checkpoint_names(client, folder)):
        raise BadInput(
            f"fetch.source: {address}: holds no checkpoint-N directory; name what they were logged under, "
            "as checkpoints in mlflow.log_artifacts(output_dir, 'checkpoints')"
        )
    return [(step, name, _wanted(client, f"{folder}/{name}")) for step, name in names]


def folder_of(run: Any, address: Address) -> str:
    """Return the URI of an address among the artifacts of its run."""
    return f"{run.info.artifact_uri}/{address.path}"


def checkpoint_names(client: "MlflowClient", folder: str) -> list[tuple[int, str]]:
    """List step and name of the checkpoint-N directories in a folder of artifacts, by step."""
    names = [name for name, entry in _listed(client, folder) if entry.is_dir]
    matches = [re.fullmatch(r"checkpoint-([0-9]+)", name) for name in names]
    return sorted((int(match[1]), match[0]) for match in matches if match)


def _wanted(client: "MlflowClient", folder: str) -> Sizes:
    """Return the files directly in a checkpoint that are ever read: no pickle, no code."""
    return {
        name: entry.file_size
        for name, entry in _listed(client, folder)
        if not entry.is_dir and name not in LORELINE_FILES and any(fnmatchcase(name, kind) for kind in KINDS)
    }


def _listed(client: "MlflowClient", folder: str) -> list[tuple[str, Any]]:
    """List names and entries of a folder, which all have to lie directly in it.

    Asked by URI, that is one request; by run id it would be five, and bring in the run's logged models.
    """
    from mlflow.artifacts import list_artifacts

    within = folder.rpartition("/")[2] + "/"
    entries = list_artifacts(artifact_uri=folder, tracking_uri=client.tracking_uri)
    named = [(entry.path.removeprefix(within), entry) for entry in entries]
    for name, entry in named:
        if name == entry.path or not re.fullmatch(SEGMENT, name):
            raise BadInput(
                f"{without_secrets(folder)}: the store lists {entry.path!r}, which leads out of it; "
                "do not use that store"
            )
    return named


def _bring(client: "MlflowClient", run: Any, address: Address, name: str, files: Sizes) -> Path:
    """Publish a checkpoint in the cache; a run that was resumed since has another end, and is read anew."""
    target = address.place / name
    made_from = digest_of([address.run_id, address.path, name, run.info.end_time, files])
    if not is_published(target, made_from):
        with publishing(target, made_from, resume=made_from) as scratch:
            for file, size in files.items():
                _bring_file(client, f"{folder_of(run, address)}/{name}", file, size, scratch)
            shutil.rmtree(scratch / PARTIAL, ignore_errors=True)
    return target


def _bring_file(client: "MlflowClient", folder: str, file: str, size: int | None, scratch: Path) -> None:
    target, directory = scratch / file, local_directory(folder)
    if target.is_file() and target.stat().st_size == size:  # left by a killed process
        return
    target.unlink(missing_ok=True)
    if directory is None:
        _patiently(lambda: _download(client, f"{folder}/{file}", size, scratch / PARTIAL)).replace(target)
        return
    try:
        link_or_copy(inside(directory, directory / file), target)
    except FileNotFoundError:
        raise Unavailable(f"{directory / file}: went away while it was read; try again") from None


def _patiently(download: Callable[[], Path]) -> Path:
    """Try again after a download that was cut: MLflow itself tries again only until the answer begins."""
    for wait in WAITS_S:
        try:
            return download()
        except Unavailable:
            time.sleep(wait)
    return download()


def _download(client: "MlflowClient", uri: str, size: int | None, into: Path) -> Path:
    """Download one file into an empty directory; raises Unavailable when it does not come whole."""
    from mlflow.artifacts import download_artifacts

    shutil.rmtree(into, ignore_errors=True)
    into.mkdir()
    with mlflow_errors(client.tracking_uri):
        got = Path(download_artifacts(uri, dst_path=str(into), tracking_uri=client.tracking_uri))
    if size not in (None, got.stat().st_size):
        raise Unavailable(
            f"{without_secrets(uri)}: came with {got.stat().st_size} bytes of {size}; try again"
        )
    return got
