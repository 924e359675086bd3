"""Staged checkpoints: hard links beside the artifacts, which survive rotation in the training directory."""

import re
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from tasks.base.digests import file_digests, linking
from tasks.base.errors import BadInput
from tasks.base.model_files import ModelFiles, on_base
from tasks.base.publish import link_or_copy
from tasks.base.records.model import AdapterBase
from tasks.base.records.record import FileDigest
from tasks.base.records.training_run import Checkpoint
from tasks.base.samples import sample_of
from tasks.checkpoints.layout import is_readable, wanted_files
from tasks.sources.addresses import source_of
from tasks.sources.conversion import directory_name, reconvert
from tasks.sources.source import FetchedCheckpoint
from tasks.trajectory.learning_rate import logged_rates
from tasks.trajectory.trainer_state import logged_metrics, read_state

STAGED = "checkpoints"
SCRATCH = ".staging-"
OWN_NAME = re.compile(r".+-[0-9a-f]{16}")
"""Names of staged checkpoints."""


def stage_checkpoint(found: FetchedCheckpoint, artifacts: Path, base: AdapterBase | None) -> Checkpoint:
    """Link what a merge needs of a checkpoint beside the artifacts, and return its record.

    Links come first, because the Trainer may remove the originals at any time. Its files are not digested yet
    (see `digested`). Raises BadInput where that would write into the training directory.
    """
    _keep_apart(found.directory, artifacts / STAGED)
    (artifacts / STAGED).mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=SCRATCH, dir=artifacts / STAGED))
    try:
        linked = scratch / "linked"
        stage_files(found.directory, linked)
        paths = sorted(linked.iterdir())
        checkpoint = Checkpoint(
            name=found.name,
            step=found.step,
            source=found.address,
            metrics=logged_metrics(linked, found.step),
            files=tuple(FileDigest(name=path.name, size=path.stat().st_size) for path in paths),
            sample=sample_of(paths),
            base=base,
            averaged=found.averaged,
            conversion=found.conversion,
            run=found.run,
        )
        directory = _place(checkpoint, artifacts)
        _remove(directory)
        linked.rename(directory)
    finally:
        shutil.rmtree(scratch)
    return checkpoint


def digested(checkpoint: Checkpoint, artifacts: Path) -> Checkpoint:
    """Return a checkpoint with its files' digests. Raises BadInput as `staged` does."""
    if checkpoint.is_digested:
        return checkpoint
    directory = staged(checkpoint, artifacts)
    return checkpoint.model_copy(update={"files": file_digests(directory, directory.iterdir())})


def _keep_apart(checkpoint: Path, stage: Path) -> None:
    source, target = checkpoint.resolve(), stage.resolve()
    if source.is_relative_to(target) or target.is_relative_to(source):
        raise BadInput(
            stage,
            f"is a link into the training directory ({target}), which is only read",
            "link it elsewhere, or remove the link",
        )


def rates_of(found: Sequence[FetchedCheckpoint]) -> tuple[tuple[int, float], ...]:
    """Return the learning rates that the newest checkpoint's log has."""
    newest = max(found, key=lambda checkpoint: checkpoint.step)
    return rates_in(newest.directory)


def rates_in(checkpoint: Path) -> tuple[tuple[int, float], ...]:
    """Return the learning rates that a checkpoint's log has, by step; none without a log."""
    return tuple((rate.step, rate.value) for rate in logged_rates(read_state(checkpoint) or {}))


def stage_files(source: Path, target: Path) -> None:
    """Link what a merge needs of a checkpoint into `target`; the source is only read."""
    wanted = wanted_files(source)
    target.mkdir(parents=True)
    with linking(wanted):
        for path in wanted:
            link_or_copy(path, target / path.name)


def staged_model(checkpoint: Checkpoint, artifacts: Path) -> ModelFiles:
    """Return where a checkpoint's files are, and its base; both are checked."""
    return on_base(staged(checkpoint, artifacts), checkpoint.base)


def staged(checkpoint: Checkpoint, artifacts: Path) -> Path:
    """Return the directory with a checkpoint's files, checked against its digests, or its sample.

    Missing files are staged again from the source. Raises BadInput when they are gone or have changed.
    """
    directory = _place(checkpoint, artifacts)
    if not _matches(checkpoint, directory):
        _restage(checkpoint, directory, artifacts)
    return directory


def prune_staged(artifacts: Path, keep: Iterable[Checkpoint]) -> None:
    """Remove staged checkpoints of other runs, to free their disk space; what else lies there stays."""
    kept = {_place(checkpoint, artifacts) for checkpoint in keep}
    for directory in set((artifacts / STAGED).iterdir()) - kept:
        if not directory.is_dir() or directory.is_symlink():
            continue
        if directory.name.startswith(SCRATCH):  # of a killed process
            shutil.rmtree(directory)
        elif OWN_NAME.fullmatch(directory.name):
            _remove(directory)


def _place(checkpoint: Checkpoint, artifacts: Path) -> Path:
    own = checkpoint.sample or checkpoint.digest
    return artifacts / STAGED / f"{directory_name(checkpoint.name)}-{own[:16]}"


def _restage(checkpoint: Checkpoint, directory: Path, artifacts: Path) -> None:
    _remove(directory)
    source = source_of(checkpoint.source).restore(checkpoint.source)
    if not source.is_dir():
        raise BadInput(
            checkpoint.source,
            f"gone, and {directory} does not hold its files",
            "bring it back, or fetch another run",
        )
    if checkpoint.conversion:
        source, _ = reconvert(source, checkpoint.name, artifacts, checkpoint.conversion.beside)
    stage_files(source, directory)
    if not _matches(checkpoint, directory):
        shutil.rmtree(directory)
        raise BadInput(
            checkpoint.source,
            "changed since it was fetched",
            "run loreline fetch --refresh to look again",
        )


def _remove(directory: Path) -> None:
    """Remove a staged checkpoint; raises BadInput for what a user put or trained there."""
    for path in directory.rglob("*"):
        if not path.is_file() or not is_readable(path.name):
            raise BadInput(path, "is not what was staged, and would be removed", "move it away")
    shutil.rmtree(directory, ignore_errors=True)


def _matches(checkpoint: Checkpoint, directory: Path) -> bool:
    found = list(directory.iterdir()) if directory.is_dir() else []
    if not all(path.is_file() for path in found):
        return False
    if checkpoint.is_digested:
        return file_digests(directory, found, checkpoint.files) == checkpoint.files
    names = [file.name for file in checkpoint.files]
    return sorted(path.name for path in found) == names and sample_of(found) == checkpoint.sample
