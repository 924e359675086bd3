"""File locks whose holder is named to those who wait."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from tasks.base.errors import BadInput
from tasks.base.records import Record


class Holder(Record):
    """The process that holds a lock, and what for."""

    pid: int
    work: str
    since: float
    """In seconds since 1970."""


@contextmanager
def held_lock(path: Path, work: str, say: Callable[[str], None]) -> Iterator[None]:
    """Hold a lock, which the system releases when the process ends; say once for whom it has to wait.

    Its file is removed at the end, while it is held: whoever waits for it then makes a new one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock, note = FileLock(path), note_of(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        _make(path)
        say(f"waiting for {_named(note)}")
        lock.acquire()
    try:
        # beside the lock, because whoever tries to take that empties it
        with suppress(OSError):  # a full disk: who waits is told less
            note.unlink(missing_ok=True)  # it may be a link to another file
            with note.open("x", encoding="utf-8") as file:
                file.write(Holder(pid=os.getpid(), work=work, since=time.time()).model_dump_json())
        yield
    finally:
        # what was done is done, whatever the disk says now; the end of the process releases the lock
        for end in (note.unlink, path.unlink, lock.release):
            with suppress(OSError):
                end()


def note_of(path: Path) -> Path:
    """Return the file beside a lock that names its holder."""
    return path.with_name(f"{path.name}.holder")


def _make(path: Path) -> None:
    """Raise OSError where no file can be made: the lock would be waited for without an end."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644))


def _named(note: Path) -> str:
    try:
        holder = Holder.read(note)
    except BadInput:  # it took the lock this moment, or released it
        return "another process"
    return f"{holder.work} (pid {holder.pid}, since {_age(time.time() - holder.since)})"


def _age(seconds: float) -> str:
    if seconds < 60:
        return f"{max(seconds, 0):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"
