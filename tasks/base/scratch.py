"""Scratch directories of this process, which go when it has to end at once."""

import shutil
from pathlib import Path

_discarded: set[Path] = set()


def discarded(scratch: Path) -> None:
    """Let a directory go with this process: no later one can go on from it."""
    _discarded.add(scratch)


def forget(scratch: Path) -> None:
    """Let `discard_scratch` leave a directory alone."""
    _discarded.discard(scratch)


def discard_scratch() -> None:
    """Remove this process's scratch directories, but not those from which a later one can go on."""
    for scratch in list(_discarded):
        shutil.rmtree(scratch, ignore_errors=True)
