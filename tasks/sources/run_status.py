"""The status of a training run: a digest of what fetch would take, and whether the run has ended."""

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from tasks.base.json_digest import digest_of


class RunStatus(NamedTuple):
    """The status of a training run at one moment; no weights are read for it."""

    digest: str
    """Changes exactly when what fetch would take changes."""
    ended: bool
    reason: str
    """Why it counts as ended or not, for the log."""


def status_of(digest: str, says_ended: bool, place: str, age: float, quiet_for: float) -> RunStatus:
    """Return the status of a run: it has ended when its state says so or nothing changed for `quiet_for`.

    `place` is its position in training, in words; `age` that of its newest change. Both times are in seconds.
    """
    if says_ended:
        return RunStatus(digest, True, f"training state says so ({place})")
    if age >= quiet_for:
        return RunStatus(digest, True, f"unchanged for {_duration(age)} ({place})")
    return RunStatus(digest, False, f"still training: {place}, last change {_duration(age)} ago")


def joint_status(seen: Mapping[str, RunStatus]) -> RunStatus:
    """Return the status of several runs, by their addresses: ended when all have; of one its own."""
    if len(seen) == 1:
        return next(iter(seen.values()))
    waited_for = {address: status for address, status in seen.items() if not status.ended} or seen
    return RunStatus(
        digest_of(["runs", *(status.digest for status in seen.values())]),
        waited_for is seen,
        "; ".join(f"{address}: {status.reason}" for address, status in waited_for.items()),
    )


def newest_change(directory: Path) -> float:
    """Return the newest modification time (seconds since 1970) of a directory and all that is in it."""
    return max((status.st_mtime for status in _file_statuses(directory)), default=0.0)


def _file_statuses(directory: Path) -> Iterator[os.stat_result]:
    """Yield the status of everything that can be read below a directory, without following links."""
    for folder, _, names in os.walk(directory):
        for name in ("", *names):
            with suppress(OSError):
                yield Path(folder, name).lstat()


def _duration(seconds: float) -> str:
    """Return a duration, rounded for reading: 12 s, 31 min, 5 h."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
