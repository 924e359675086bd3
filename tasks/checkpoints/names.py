"""Names of checkpoints, and the step in a name."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from tasks.base.errors import BadInput, is_unicode

LONGEST_NAME = 255
"""Bytes of a file's name on this machine."""
CHECKPOINTS_GLOB = "checkpoint-[0-9]*"
"""A glob of the names that `numbered` accepts, and a few more."""


def numbered(names: Iterable[str]) -> list[tuple[int, str]]:
    """Return step and name of every checkpoint-N among names, by step."""
    matches = (re.fullmatch(r"checkpoint-([0-9]+)", name) for name in names)
    return sorted((int(match[1]), match[0]) for match in matches if match)


def fits_file_system(name: str) -> bool:
    """Tell whether a name from elsewhere can be that of a file here."""
    return is_unicode(name) and len(name.encode()) <= LONGEST_NAME


def step_at_end(name: str) -> int | None:
    """Return the number that a name ends in, as that of the branch step1000; None without one."""
    match = re.search(r"[0-9]+$", name)
    return int(match[0]) if match else None


def step_of(directory: Path) -> int:
    """Return the step that a directory's name ends in, 0 without one."""
    return step_at_end(directory.name) or 0


def labels_of(directories: Sequence[Path]) -> list[str]:
    """Name directories by their last part, or in full where that would name two of them alike.

    Raises BadInput for one that is named twice.
    """
    places = [directory.resolve() for directory in directories]
    if twice := [place for place in places if places.count(place) > 1]:
        raise BadInput(twice[0], "is named twice", "name every checkpoint once")
    short = [directory.absolute().name for directory in directories]
    return short if len(set(short)) == len(short) else [str(directory) for directory in directories]
