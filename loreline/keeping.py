"""Keeping a run's newest checkpoints as hard links, where the Trainer's rotation does not reach them.

Beside `runs/my-run` that is `runs/.my-run.kept`, with checkpoint-N, and mean-N where means are kept. These
directories appear and disappear whole.
"""

import os
import re
import shutil
from collections.abc import Iterator, Set
from contextlib import contextmanager
from pathlib import Path

WEIGHTS = "*.safetensors"
BESIDE = ("*.json", "*.txt", "*.model", "*.jinja")
"""What a merge reads of a checkpoint with its weights: configuration, tokenizer, templates, state."""
NOT_OF_A_MEAN = ("trainer_state.json", "*.index.json")
KEPT = re.compile(r"(?:checkpoint|mean)-([0-9]+)")


def kept_directory(run: Path) -> Path:
    """Return where the checkpoints of an output directory are kept: hidden beside it, on its file system."""
    run = run.resolve()
    return run.parent / f".{run.name}.kept"


def link_checkpoint(checkpoint: Path, kept: Path) -> None:
    """Link a checkpoint's weights and what a merge reads beside them into `kept`, under its name.

    Raises OSError where links cannot be made, ValueError for a checkpoint without safetensors.
    """
    weights = list(checkpoint.glob(WEIGHTS))
    if not weights:
        raise ValueError(f"{checkpoint} holds no {WEIGHTS}")
    with making(kept / checkpoint.name) as scratch:
        for path in [*weights, *_beside(checkpoint)]:
            os.link(path, scratch / path.name)


def copy_beside(checkpoint: Path, model: Path) -> None:
    """Copy the tokenizer and the like from a checkpoint, where a model directory does not have its own."""
    for path in _beside(checkpoint):
        if not any(path.match(pattern) for pattern in NOT_OF_A_MEAN) and not (model / path.name).exists():
            shutil.copy(path, model / path.name)


@contextmanager
def making(directory: Path) -> Iterator[Path]:
    """Yield an empty directory that takes the place of `directory` when the block ends without an error."""
    scratch = directory.with_name(f".{directory.name}.making")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        yield scratch
        _remove(directory)
        scratch.rename(directory)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def prune(kept: Path, newest: int, resumed_at: int, made: Set[int]) -> None:
    """Remove all but the newest steps, and those of another trajectory; raises OSError.

    What is later than `resumed_at` and not `made` since is of one: of an earlier training in the same output
    directory, or of steps that were trained again.
    """
    there = {path: int(match[1]) for path in kept.iterdir() if (match := KEPT.fullmatch(path.name))}
    ours = sorted({step for step in there.values() if step <= resumed_at or step in made})
    for path, step in there.items():
        if step not in ours[-newest:]:
            _remove(path)
    for path in kept.glob(".*"):  # left by processes that were killed
        shutil.rmtree(path)


def _beside(checkpoint: Path) -> list[Path]:
    return [path for pattern in BESIDE for path in checkpoint.glob(pattern)]


def _remove(directory: Path) -> None:
    """Remove a directory, which is never seen with some of its files missing."""
    gone = directory.with_name(f".{directory.name}.gone")
    shutil.rmtree(gone, ignore_errors=True)
    if directory.exists():
        directory.rename(gone)
        shutil.rmtree(gone)
