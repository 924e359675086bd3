"""Publishing a stage's directory atomically, with a manifest of what it was made from and holds."""

import errno
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from tasks.base.held_lock import held_lock
from tasks.base.manifest import MANIFEST, Manifest, check_replaceable, contents, own_name, stem_of
from tasks.base.placing import is_fixed, is_on_its_way, move_files, put_in_place, sync
from tasks.base.scratch import discarded, forget

log = logging.getLogger(__name__)


@contextmanager
def publishing(
    directory: Path, made_from: str | Callable[[], str], resume: str | None = None, owned: bool = False
) -> Iterator[Path]:
    """Yield a scratch directory that takes the place of `directory` when the block ends well.

    The earlier output is visible until the new one is complete and synced; after a crash at any moment one of
    the two is there, complete. A link is followed. A directory that has to stay where it is (see `is_fixed`)
    is filled instead, its manifest last: a crash in between leaves it without one, and the next writer
    finishes. Raises BadInput when something else lies there, or came there meanwhile (see
    `check_replaceable`), unless the directory is Loreline's own (`owned`: a store, a cache). The manifest is
    written last; a `made_from` that is known only then may be a function. With `resume`, the identity of the
    work, the scratch directory still holds the files of a stopped or killed process with the same one.
    """
    directory = directory.resolve()
    with _locked(directory), _scratch(directory, resume) as scratch:
        if not owned:
            check_replaceable(directory)
        yield scratch
        origin = made_from if isinstance(made_from, str) else made_from()
        Manifest(made_from=origin, files=contents(scratch)).write(scratch / MANIFEST)
        sync(*scratch.rglob("*"), scratch)
        if not owned:  # again: the user may have put something there while the block ran
            check_replaceable(directory)
        put_in_place(scratch, directory)


def link_or_copy(source: Path, target: Path) -> None:
    """Hard-link a file, or what it is a link to; copy it where the file system cannot link."""
    try:
        os.link(source.resolve(), target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
            raise
        shutil.copy2(source, target)


def tidy(directory: Path) -> None:
    """Remove scratch directories of killed processes, unless a writer holds the lock."""
    directory = directory.resolve()
    with suppress(Timeout), FileLock(_lock(directory)).acquire(timeout=0):
        _remove_stale(directory, keep=None)
        _lock(directory).unlink()


def finish_placing(directory: Path) -> None:
    """Finish what a process was killed at while it filled a directory that has to stay where it is."""
    directory = directory.resolve()
    if directory.is_dir() and any(is_on_its_way(path) for path in _scratches_of(directory)):
        with _locked(directory):
            _remove_stale(directory, keep=None)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    place = _lock(directory)
    place.parent.mkdir(parents=True, exist_ok=True)
    with held_lock(place, f"the process that writes {directory}", log.warning):
        yield


def _lock(directory: Path) -> Path:
    """Return the lock file of a directory's one writer, the same for every user and host."""
    return _place(directory) / f".{stem_of(directory)}.lock"


def _place(directory: Path) -> Path:
    """Return where a directory's lock and scratch directories lie: in its file system."""
    return directory if is_fixed(directory) else directory.parent


@contextmanager
def _scratch(directory: Path, resume: str | None) -> Iterator[Path]:
    name = f".{stem_of(directory)}.{(resume or uuid.uuid4().hex)[:16]}"
    scratch = _place(directory) / name
    _remove_stale(directory, keep=scratch)
    scratch.mkdir(exist_ok=True)
    if resume is None:
        discarded(scratch)
    stopped = False
    try:
        yield scratch
    except BaseException as error:
        stopped = not isinstance(error, Exception)  # by Ctrl-C or SIGTERM
        raise
    finally:
        if is_on_its_way(scratch):
            log.warning(
                "%s: some files are still in %s; the same command goes on from there", directory, scratch
            )
        elif stopped and resume is not None:
            log.warning("stopped: %s is kept, and the same command goes on from there", scratch)
        else:
            shutil.rmtree(scratch, ignore_errors=True)
        forget(scratch)


def _remove_stale(directory: Path, keep: Path | None) -> None:
    """Remove what stopped and killed processes left; the caller holds the lock, so no writer is at work."""
    for path in _scratches_of(directory):
        finished = is_on_its_way(path)
        if finished:
            move_files(path, directory)
        if finished or path != keep:
            shutil.rmtree(path)


def _scratches_of(directory: Path) -> list[Path]:
    own = own_name(directory)
    return [path for path in _place(directory).iterdir() if own.match(path.name) and path.is_dir()]
