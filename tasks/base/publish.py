"""Publishing a stage's directory atomically, with a manifest of what it was made from and holds."""

import ctypes
import errno
import logging
import os
import re
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from tasks.base.digests import file_digests
from tasks.base.directories import cache_dir
from tasks.base.errors import BadInput
from tasks.base.held_lock import held_lock
from tasks.base.records import FileDigest, Record, digest_of

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"


class Manifest(Record):
    """The fingerprint that a published directory was made from, and its files."""

    made_from: str
    files: tuple[FileDigest, ...]


def is_published(directory: Path, made_from: str) -> bool:
    """Tell whether `directory` is the intact output of exactly these inputs."""
    manifest = _manifest(directory)
    return manifest is not None and manifest.made_from == made_from and manifest.files == _contents(directory)


def is_intact(directory: Path) -> bool:
    """Tell whether a published directory still holds what its manifest says."""
    manifest = _manifest(directory)
    return manifest is not None and manifest.files == _contents(directory)


def _manifest(directory: Path) -> Manifest | None:
    try:
        return Manifest.read(directory / MANIFEST)
    except BadInput:
        return None


def check_untouched(directory: Path) -> None:
    """Raise BadInput also when a file is not what its manifest says: a user may have trained on there."""
    check_replaceable(directory)
    manifest = _manifest(directory)
    known = {file.name: file for file in manifest.files} if manifest else {}
    for file in _contents(directory):
        if known.get(file.name) != file:
            raise BadInput(
                directory / file.name,
                "was changed since Loreline wrote it, and would be replaced",
                "move it away, or write somewhere else",
            )


def check_replaceable(directory: Path) -> None:
    """Raise BadInput when a directory holds files that its manifest does not name, which are the user's."""
    if not directory.exists():
        return
    manifest = _manifest(directory)
    ours = {directory / file.name for file in manifest.files} | {directory / MANIFEST} if manifest else set()
    ours |= {parent for path in ours for parent in path.parents}
    if others := sorted(set(directory.rglob("*")) - ours):
        raise BadInput(
            others[0],
            f"is not part of what Loreline wrote to {directory}, which would be replaced",
            "move it away, or write somewhere else",
        )


@contextmanager
def publishing(
    directory: Path, made_from: str | Callable[[], str], resume: str | None = None, owned: bool = False
) -> Iterator[Path]:
    """Yield a scratch directory that takes the place of `directory` when the block ends well.

    The earlier output is visible until the new one is complete and synced; after a crash at any moment one of
    the two is there, complete. Raises BadInput when something else lies there, or came there meanwhile (see
    `check_replaceable`), unless the directory is Loreline's own (`owned`: a store, a cache). The manifest is
    written last; a `made_from` that is known only then may be a function. With `resume`, the identity of the
    work, the scratch directory still holds the files of a stopped or killed process with the same one.
    """
    work = f"the process that writes {directory.absolute()}"
    with held_lock(_lock(directory), work, log.warning), _scratch(directory, resume) as scratch:
        if not owned:
            check_replaceable(directory)
        yield scratch
        origin = made_from if isinstance(made_from, str) else made_from()
        Manifest(made_from=origin, files=_contents(scratch)).write(scratch / MANIFEST)
        _sync(*scratch.rglob("*"), scratch)
        if not owned:  # again: the user may have put something there while the block ran
            check_replaceable(directory)
        _put_in_place(scratch, directory)


def link_or_copy(source: Path, target: Path) -> None:
    """Hard-link a file, or what it is a link to; copy it where the file system cannot link."""
    try:
        os.link(source.resolve(), target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
            raise
        shutil.copy2(source, target)


def _lock(directory: Path) -> Path:
    """Return the lock file of a directory's one writer."""
    return cache_dir() / "locks" / digest_of(str(directory.absolute()))


@contextmanager
def _scratch(directory: Path, resume: str | None) -> Iterator[Path]:
    directory.parent.mkdir(parents=True, exist_ok=True)
    scratch = directory.with_name(f".{directory.name}.{(resume or uuid.uuid4().hex)[:16]}")
    _remove_stale(directory, keep=scratch)
    scratch.mkdir(exist_ok=True)
    if resume is None:
        _scratches.add(scratch)
    stopped = False
    try:
        yield scratch
    except BaseException as error:
        stopped = not isinstance(error, Exception)  # by Ctrl-C or SIGTERM
        raise
    finally:
        if stopped and resume is not None:
            log.warning("stopped: %s is kept, and the same command goes on from there", scratch)
        else:
            shutil.rmtree(scratch, ignore_errors=True)
        _scratches.discard(scratch)


def _remove_stale(directory: Path, keep: Path | None) -> None:
    """Remove what stopped and killed processes left; the caller holds the lock, so no writer is at work."""
    name = re.compile(rf"\.{re.escape(directory.name)}\.[0-9a-f]{{16}}(\.old)?")
    for path in directory.parent.iterdir():
        if name.fullmatch(path.name) and path != keep:
            shutil.rmtree(path)


def tidy(directory: Path) -> None:
    """Remove scratch directories of killed processes, unless a writer holds the lock."""
    with suppress(Timeout), FileLock(_lock(directory)).acquire(timeout=0):
        _remove_stale(directory, keep=None)


_scratches: set[Path] = set()
"""Of this process, without those from which a later one can go on."""


def discard_scratch() -> None:
    """Remove this process's scratch directories, for a process that has to end at once.

    Those from which a later process can go on are kept.
    """
    for scratch in list(_scratches):
        shutil.rmtree(scratch, ignore_errors=True)


def _contents(directory: Path) -> tuple[FileDigest, ...]:
    paths = (path for path in directory.rglob("*") if path.is_file() and path.name != MANIFEST)
    return file_digests(directory, paths)


def _sync(*paths: Path) -> None:
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _put_in_place(scratch: Path, directory: Path) -> None:
    if directory.exists():
        _exchange(scratch, directory)
    else:
        scratch.rename(directory)
    _sync(directory.parent)


def _exchange(scratch: Path, directory: Path) -> None:
    """Swap two directories in one step where the system can (Linux), else with two renames."""
    at_fdcwd, rename_exchange = -100, 2
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if not libc.renameat2(
            at_fdcwd, os.fsencode(scratch), at_fdcwd, os.fsencode(directory), rename_exchange
        ):
            return
    aside = scratch.with_name(scratch.name + ".old")
    directory.rename(aside)
    scratch.rename(directory)
    aside.rename(scratch)
