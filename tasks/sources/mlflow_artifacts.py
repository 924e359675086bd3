"""Checkpoints among MLflow's artifacts: listing, refusing unsafe names, downloading completely."""

import re
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.base.errors import BadInput, Unavailable, without_secrets
from tasks.base.publish import is_published, link_or_copy, publishing
from tasks.checkpoints.layout import LORELINE_FILES, inside, is_readable
from tasks.checkpoints.names import fits_file_system, numbered
from tasks.registry.files import local_directory
from tasks.registry.store import mlflow_errors
from tasks.sources.room import check_room

if TYPE_CHECKING:
    from mlflow import MlflowClient

Sizes = Mapping[str, int | None]
"""File name → size in bytes; None where the store does not tell."""
SEGMENT = r"(?!\.{1,2}(?:/|$))[^/\\?#%\x00-\x1f]+"
"""One part of a path of artifacts."""
WAITS_S = (1.0, 2.0, 4.0)
PARTIAL = ".partial"


def checkpoint_names(client: "MlflowClient", folder: str) -> list[tuple[int, str]]:
    """List step and name of the checkpoint-N directories in a folder of artifacts (its URI), by step."""
    return numbered(name for name, entry in _listed(client, folder) if entry.is_dir)


def wanted_sizes(client: "MlflowClient", folder: str) -> Sizes:
    """Return name → size of the files in a checkpoint that are read: no pickles, no code."""
    return {
        name: entry.file_size
        for name, entry in _listed(client, folder)
        if not entry.is_dir and name not in LORELINE_FILES and is_readable(name)
    }


def bring(client: "MlflowClient", folder: str, files: Sizes, target: Path, made_from: str) -> None:
    """Publish files of a folder at `target`, unless it is published from the same already.

    Files that a killed process brought are kept. Raises Unavailable when a download is incomplete.
    """
    if is_published(target, made_from):
        return
    with publishing(target, made_from, resume=made_from) as scratch:
        sizes = [size or 0 for name, size in files.items() if not (scratch / name).exists()]
        if local_directory(folder) is None:
            check_room(target, sum(sizes), "set XDG_CACHE_HOME")
        for name, size in files.items():
            _bring_file(client, folder, name, size, scratch)
        shutil.rmtree(scratch / PARTIAL, ignore_errors=True)


def _listed(client: "MlflowClient", folder: str) -> list[tuple[str, Any]]:
    """List names and entries of a folder, which all have to lie directly in it.

    By URI this is one request; by run id it would be five, and list the run's logged models too.
    """
    from mlflow.artifacts import list_artifacts

    within = folder.rpartition("/")[2] + "/"
    entries = list_artifacts(artifact_uri=folder, tracking_uri=client.tracking_uri)
    named = [(entry.path.removeprefix(within), entry) for entry in entries]
    for name, entry in named:
        if name == entry.path or not re.fullmatch(SEGMENT, name) or not fits_file_system(name):
            raise BadInput(
                without_secrets(folder),
                f"the store lists {entry.path!r}, which is no name of a file in it",
                "do not use that store",
            )
    return named


def _bring_file(client: "MlflowClient", folder: str, name: str, size: int | None, scratch: Path) -> None:
    target, directory = scratch / name, local_directory(folder)
    if target.is_file() and target.stat().st_size == size:  # left by a killed process
        return
    target.unlink(missing_ok=True)
    if directory is None:
        _patiently(lambda: _download(client, f"{folder}/{name}", size, scratch / PARTIAL)).replace(target)
        return
    try:
        link_or_copy(inside(directory, directory / name), target)
    except FileNotFoundError:
        raise Unavailable(directory / name, "went away while it was read", "try again") from None


def _patiently(download: Callable[[], Path]) -> Path:
    """Retry a download that was cut off: MLflow itself retries only until the response begins."""
    for wait in WAITS_S:
        try:
            return download()
        except Unavailable:
            time.sleep(wait)
    return download()


def _download(client: "MlflowClient", uri: str, size: int | None, into: Path) -> Path:
    """Download one file into an empty directory; raises Unavailable when it is incomplete."""
    from mlflow.artifacts import download_artifacts

    shutil.rmtree(into, ignore_errors=True)
    into.mkdir()
    with mlflow_errors(client.tracking_uri):
        got = Path(download_artifacts(uri, dst_path=str(into), tracking_uri=client.tracking_uri))
    if size not in (None, got.stat().st_size):
        raise Unavailable(
            without_secrets(uri), f"came with {got.stat().st_size} bytes of {size}", "try again"
        )
    return got
