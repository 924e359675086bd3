"""What a look at a training run shows: what fetch would take, and whether the run has ended."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple


class RunStatus(NamedTuple):
    """A training run at one look; no weights are read for it."""

    digest: str
    """Changes whenever what fetch would take changes, and with nothing else that lies beside it."""
    ended: bool
    reason: str
    """Why it counts as ended or not, as one phrase for the log."""


def status_of(digest: str, says_ended: bool, place: str, age: float, quiet_for: float) -> RunStatus:
    """Judge a run at `place` in its training: its state says that it has ended, or nothing has changed.

    `age` is that of its newest change; it and `quiet_for` are in seconds.
    """
    if says_ended:
        return RunStatus(digest, True, f"training state says so ({place})")
    if age >= quiet_for:
        return RunStatus(digest, True, f"unchanged for {_duration(age)} ({place})")
    return RunStatus(digest, False, f"still training: {place}, last change {_duration(age)} ago")


def newest_change(directory: Path) -> float:
    """Return the newest modification time (seconds since 1970) of a directory and all that is in it."""
    return max((status.st_mtime for status in _file_statuses(directory)), default=0.0)


def _file_statuses(directory: Path) -> Iterator[os.stat_result]:
    """Stat all that can be looked at, links themselves and not what they lead to."""
    for folder, _, names in os.walk(directory):
        for name in ("", *names):
            with suppress(OSError):
                yield Path(folder, name).lstat()


def _duration(seconds: float) -> str:
    """Return a rough length of time to read: 12 s, 31 min, 5 h."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
