"""What a Trainer's output directory looks like now: names, sizes, times and its saved state, no weights."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from tasks.base.errors import BadInput
from tasks.base.records import digest_of
from tasks.checkpoints.layout import STATE
from tasks.sources.addresses import checkpoints_in
from tasks.sources.run_status import Look, says_ended, standing, step_of_steps
from tasks.sources.staging import wanted_files

SETTLED_S = 1.0
"""The Trainer removes old checkpoints just after it has written the last state: let that begin to show."""


class _Seen(NamedTuple):
    """A checkpoint-N directory at one look."""

    step: int
    directory: Path
    files: list[tuple[str, int, int]]
    """Name, size and modification time (ns) of what fetch would take; none while it is not whole."""
    doubt: str
    """Why it is not whole; empty when it is."""


def look_at_directory(source: str, quiet_for: float) -> Look:
    """Return what a Trainer's output directory looks like now; files may come and go meanwhile.

    Raises BadInput when there is no such directory, or no checkpoint in it.
    """
    seen = [_see(step, path) for step, path in checkpoints_in(source)]
    now, root = time.time(), Path(source)
    state = read_state(seen[-1].directory) or {}
    doubt = _doubt(seen, state, now)
    said = not doubt and (says_ended(state) or _saved_at_the_end(root, seen[-1]))
    age = now - newest_change(root)
    digest = digest_of([(one.directory.name, one.files) for one in seen])
    return Look(digest, *standing(said, doubt or step_of_steps(state), age, quiet_for))


def read_state(directory: Path) -> dict[str, Any] | None:
    """Return a directory's trainer_state.json; None while there is none that can be read."""
    try:
        state = json.loads((directory / STATE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return state if isinstance(state, dict) else None


def newest_change(directory: Path) -> float:
    """Return the newest modification time (seconds since 1970) of a directory and all that is in it."""
    return max((status.st_mtime for status in _statuses(directory)), default=0.0)


def _see(step: int, directory: Path) -> _Seen:
    if not (directory / STATE).is_file():
        return _Seen(step, directory, [], f"has no {STATE}: still being written, or half removed")
    try:
        stated = [(path.name, path.stat()) for path in wanted_files(directory)]
    except OSError:
        return _Seen(step, directory, [], "misses a file: still being written, or half removed")
    except BadInput:  # it cannot be used, and fetch says why
        return _Seen(step, directory, [], "")
    return _Seen(step, directory, [(name, at.st_size, at.st_mtime_ns) for name, at in stated], "")


def _doubt(seen: list[_Seen], state: dict[str, Any], now: float) -> str:
    """Say why the files cannot be believed to be what the run ends with; empty when they can."""
    for one in reversed(seen):
        if one.doubt:
            return f"{one.directory.name} {one.doubt}"
    newest = seen[-1]
    if state.get("global_step") != newest.step:
        return f"{newest.directory.name}/{STATE} cannot be read yet"
    if now - max(newest_change(one.directory) for one in seen) < SETTLED_S:
        return f"{step_of_steps(state)} but still changing"
    return ""


def _saved_at_the_end(root: Path, newest: _Seen) -> bool:
    """Tell whether trainer.save_state() was called after the newest checkpoint."""
    step = (read_state(root) or {}).get("global_step")
    with suppress(OSError):
        later = (root / STATE).stat().st_mtime >= (newest.directory / STATE).stat().st_mtime
        return later and isinstance(step, int) and step >= newest.step
    return False


def _statuses(directory: Path) -> Iterator[os.stat_result]:
    """Stat all that can be looked at, links themselves and not what they lead to."""
    for folder, _, names in os.walk(directory):
        for name in ("", *names):
            with suppress(OSError):
                yield Path(folder, name).lstat()
