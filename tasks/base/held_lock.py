"""File locks whose holder is named to those who wait."""

import os
import pwd
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from tasks.base.errors import BadInput
from tasks.base.records.record import Record

PRIVATE, SHARED = 0o644, 0o666
"""Permissions of a lock's file; who reaches a shared one is for its directory to say."""


class Holder(Record):
    """The process that holds a lock, and what for."""

    pid: int
    work: str
    since: float
    """In seconds since 1970."""
    user: str = ""


@contextmanager
def held_lock(
    path: Path, work: str, say: Callable[[str], None], permissions: int = PRIVATE
) -> Iterator[None]:
    """Hold a lock, which the system releases when the process ends; say once for whom it has to wait.

    Its file is removed at the end, while it is held: whoever waits for it then makes a new one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock, note = FileLock(path, mode=permissions), note_of(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        _make(path, permissions)
        say(f"waiting for {_named(note)}")
        lock.acquire()
    try:
        # beside the lock, because whoever tries to take that empties it
        with suppress(OSError):  # a full disk: who waits is told less
            note.unlink(missing_ok=True)  # it may be a link to another file
            with note.open("x", encoding="utf-8") as file:
                holder = Holder(pid=os.getpid(), work=work, since=time.time(), user=_user())
                file.write(holder.model_dump_json())
        yield
    finally:
        # what was done is done, whatever the disk says now; the end of the process releases the lock
        for end in (note.unlink, path.unlink, lock.release):
            with suppress(OSError):
                end()


def note_of(path: Path) -> Path:
    """Return the file beside a lock that names its holder."""
    return path.with_name(f"{path.name}.holder")


def _make(path: Path, permissions: int) -> None:
    """Raise OSError where no file can be made: the lock would be waited for without an end."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, permissions)
    with suppress(PermissionError):  # another user's, who has set them
        os.fchmod(file, permissions)
    os.close(file)


def _named(note: Path) -> str:
    try:
        holder = Holder.read(note)
    except BadInput:  # it took the lock this moment, or released it
        return "another process"
    user = "" if holder.user in ("", _user()) else f"user {holder.user}, "
    return f"{holder.work} ({user}pid {holder.pid}, since {_age(time.time() - holder.since)})"


def _user() -> str:
    """Return the name of this process's user, or its number where it has none."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _age(seconds: float) -> str:
    if seconds < 60:
        return f"{max(seconds, 0):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"
