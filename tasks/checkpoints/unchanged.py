"""Whether files stayed what they were while they were read."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from tasks.base.errors import BadInput


def file_states(paths: Iterable[Path]) -> dict[Path, os.stat_result]:
    """Note inode, size and times of files, before they are read."""
    return {path: path.stat() for path in paths if path.exists()}


def check_unchanged(before: Mapping[Path, os.stat_result]) -> None:
    """Raise BadInput when a file was written to, or replaced, since its state was noted.

    A deleted one is as it was for who has it open.
    """
    for path, then in before.items():
        try:
            now = path.stat()
        except FileNotFoundError:
            continue
        if _content(then) != _content(now) or _touched(then, now):
            raise BadInput(path, "was changed while it was read", "run again when nothing writes to it")


def _content(state: os.stat_result) -> tuple[int, ...]:
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns


def _touched(then: os.stat_result, now: os.stat_result) -> bool:
    """Tell whether a ctime changed for another reason than hard links, which staging and rotation change."""
    return then.st_ctime_ns != now.st_ctime_ns and then.st_nlink == now.st_nlink
