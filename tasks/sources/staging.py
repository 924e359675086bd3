"""Staged checkpoints: hard links beside the artifacts that outlive the training directory's rotation."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from tasks.base.digests import file_digests
from tasks.base.errors import BadInput
from tasks.base.publish import link_or_copy
from tasks.base.records import Checkpoint
from tasks.checkpoints.layout import INDEX, STATE, side_files, weight_files
from tasks.sources.hub_download import download_checkpoint
from tasks.sources.mlflow_address import kept

STAGED = "checkpoints"


def wanted_files(source: Path) -> list[Path]:
    """List what a merge needs of a checkpoint: weights, configuration, tokenizer and training state.

    Raises BadInput for a directory without weights that can be read.
    """
    wanted = [*weight_files(source), *side_files(source)]
    return wanted + [source / name for name in (INDEX, STATE) if (source / name).is_file()]


def stage_files(source: Path, target: Path) -> None:
    """Link what a merge needs of a checkpoint into `target`; the source is only read."""
    wanted = wanted_files(source)
    target.mkdir(parents=True)
    for path in wanted:
        link_or_copy(path, target / path.name)


def staged(checkpoint: Checkpoint, artifacts: Path) -> Path:
    """Return the directory with a checkpoint's files, checked against its digests.

    Missing files are staged again from the source. Raises BadInput when they are gone or have changed.
    """
    directory = _place(checkpoint, artifacts)
    if not _matches(checkpoint, directory):
        _restage(checkpoint, directory)
    return directory


def put_staged(linked: Path, checkpoint: Checkpoint, artifacts: Path) -> None:
    """Move a directory of linked files to where `staged` looks for them."""
    directory = _place(checkpoint, artifacts)
    shutil.rmtree(directory, ignore_errors=True)
    linked.rename(directory)


def prune_staged(artifacts: Path, keep: Iterable[Checkpoint]) -> None:
    """Drop staged checkpoints of other runs, so that their disk space is not held for ever."""
    kept = {_place(checkpoint, artifacts) for checkpoint in keep}
    for directory in set((artifacts / STAGED).iterdir()) - kept:
        shutil.rmtree(directory)


def _place(checkpoint: Checkpoint, artifacts: Path) -> Path:
    name = checkpoint.name.replace("/", "--")  # a Hub revision may be called runs/step10
    return artifacts / STAGED / f"{name}-{checkpoint.digest[:16]}"


def _restage(checkpoint: Checkpoint, directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    source = source_directory(checkpoint.source)
    if not source.is_dir():
        raise BadInput(
            f"{checkpoint.source}: gone, and {directory} does not hold its files; "
            "bring it back, or fetch another run"
        )
    stage_files(source, directory)
    if not _matches(checkpoint, directory):
        shutil.rmtree(directory)
        raise BadInput(
            f"{checkpoint.source}: changed since it was fetched; run loreline fetch --refresh to look again"
        )


def source_directory(source: str) -> Path:
    """Return where a checkpoint's source lies on this machine, downloading a Hub checkpoint if need be.

    Raises BadInput for one of an MLflow run that is no longer kept here.
    """
    if source.startswith("hf://"):
        return download_checkpoint(source)
    return kept(source) if source.startswith("mlflow:/") else Path(source)


def _matches(checkpoint: Checkpoint, directory: Path) -> bool:
    return directory.is_dir() and file_digests(directory, directory.iterdir()) == checkpoint.files
