"""Publishing a stage's directory atomically, with a manifest of what it was made from and holds."""

import errno
import logging
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from tasks.base.cloning import clone_or_copy
from tasks.base.digests import file_digests
from tasks.base.errors import BadInput
from tasks.base.held_lock import held_lock, note_of
from tasks.base.json_digest import digest_of
from tasks.base.placing import EARLIER, has_own_disk, move_files, put_in_place, set_out, sync
from tasks.base.records.record import FileDigest, Record
from tasks.base.scratch import discarded, forget

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
LONGEST_STEM = 200
"""Bytes of a name, so that what is put before and behind it fits into the 255 of a file system."""


class Manifest(Record):
    """The fingerprint that a published directory was made from, and its files."""

    made_from: str
    files: tuple[FileDigest, ...]


def is_published(directory: Path, made_from: str) -> bool:
    """Tell whether `directory` is the intact output of exactly these inputs."""
    manifest = _manifest(directory)
    return manifest is not None and manifest.made_from == made_from and _holds(directory, manifest)


def is_intact(directory: Path) -> bool:
    """Tell whether a published directory still holds what its manifest says."""
    manifest = _manifest(directory)
    return manifest is not None and _holds(directory, manifest)


def _holds(directory: Path, manifest: Manifest) -> bool:
    return manifest.files == _contents(directory, manifest.files)


def _manifest(directory: Path) -> Manifest | None:
    """Read a directory's manifest; None where it has none that can be read."""
    try:
        return Manifest.read(directory / MANIFEST)
    except BadInput:
        return None


def _contents(directory: Path, like: Iterable[FileDigest] = ()) -> tuple[FileDigest, ...]:
    """Digest a directory's files, all but its manifest and what a writer keeps there for a while."""
    paths = (path for path in directory.rglob("*") if path.is_file() and path.name != MANIFEST)
    own = own_name(directory)
    return file_digests(directory, (path for path in paths if not own.match(_first(directory, path))), like)


def check_untouched(directory: Path) -> None:
    """Raise BadInput also when a file is not what its manifest says: a user may have trained on there."""
    check_replaceable(directory)
    manifest = _manifest(directory)
    known = {file.name: file for file in manifest.files} if manifest else {}
    for file in _contents(directory, known.values()):
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
    own = own_name(directory)
    others = (path for path in directory.rglob("*") if not own.match(_first(directory, path)))
    if found := sorted(set(others) - ours):
        raise BadInput(
            found[0],
            f"is not part of what Loreline wrote to {directory}, which would be replaced",
            "move it away, or write somewhere else",
        )


@contextmanager
def publishing(
    directory: Path,
    made_from: str | Callable[[], str],
    resume: str | None = None,
    owned: bool = False,
    like: Iterable[FileDigest] = (),
) -> Iterator[Path]:
    """Yield a scratch directory that takes the place of `directory` when the block ends well.

    The earlier output is visible until the new one is complete and synced; after a crash at any moment one of
    the two is there, complete. A link is followed. A directory that has to stay where it is (a mount point,
    the working directory) is filled instead, its manifest last: a crash in between leaves it without one, and
    the next writer finishes. Raises BadInput when something else lies there, or came there meanwhile (see
    `check_replaceable`), unless the directory is Loreline's own (`owned`: a store, a cache). The manifest is
    written last; a `made_from` that is known only then may be a function. With `resume`, the identity of the
    work, the scratch directory still holds the files of a stopped or killed process with the same one. The
    manifest has SHA-256 of the files that `like` has it of.
    """
    directory = directory.resolve()
    with _locked(directory), _scratch(directory, resume) as scratch:
        if not owned:
            check_replaceable(directory)
        yield scratch
        origin = made_from if isinstance(made_from, str) else made_from()
        Manifest(made_from=origin, files=_contents(scratch, like)).write(scratch / MANIFEST)
        sync(*scratch.rglob("*"), scratch)
        if not owned:  # again: the user may have put something there while the block ran
            check_replaceable(directory)
        if has_own_disk(directory) or Path.cwd().is_relative_to(directory):
            _fill(scratch, directory)
        else:
            put_in_place(scratch, directory)


def link_or_copy(source: Path, target: Path) -> None:
    """Hard-link a file, or what it is a link to; where the file system cannot, clone it, or else copy it."""
    try:
        os.link(source.resolve(), target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
            raise
        clone_or_copy(source, target)


def link_read_only(source: Path, target: Path) -> None:
    """Link a file, or copy it, so that nobody can write to either by the other's name."""
    link_or_copy(source, target)
    try:
        _protect(target)
    except PermissionError:  # another user's file, who may write to it
        target.unlink()
        clone_or_copy(source, target)
        _protect(target)


def _protect(path: Path) -> None:
    path.chmod(path.stat().st_mode & ~0o222)


def tidy(directory: Path) -> None:
    """Remove scratch directories of killed processes, unless a writer holds the lock."""
    directory = directory.resolve()
    lock = _lock(directory)
    with suppress(Timeout), FileLock(lock).acquire(timeout=0):
        _remove_stale(directory, keep=None)
        note_of(lock).unlink(missing_ok=True)
        lock.unlink()


def finish_placing(directory: Path) -> None:
    """Finish what a process was killed at while it filled a directory that has to stay where it is."""
    directory = directory.resolve()
    if directory.is_dir() and any(_is_on_its_way(path) for path in _scratches_of(directory)):
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
    return _place(directory) / f".{_stem(directory)}.lock"


def _place(directory: Path) -> Path:
    """Return where a directory's lock and scratch directories lie: in its file system."""
    return directory if has_own_disk(directory) else directory.parent


@contextmanager
def _scratch(directory: Path, resume: str | None) -> Iterator[Path]:
    name = f".{_stem(directory)}.{(resume or uuid.uuid4().hex)[:16]}"
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
        if _may_be_on_its_way(scratch):
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
        finished = _is_on_its_way(path)
        if finished:
            _fill(path, directory)
        if finished or path != keep:
            shutil.rmtree(path)


def _scratches_of(directory: Path) -> list[Path]:
    own = own_name(directory)
    return [path for path in _place(directory).iterdir() if own.match(path.name) and path.is_dir()]


def _fill(scratch: Path, directory: Path) -> None:
    """Move a finished directory's files into one that has to stay; called again it goes on.

    From the first step to the last there is no manifest in `directory`: it does not count as published.
    """
    earlier = set_out(scratch, directory, MANIFEST)
    new = {file.name for file in Manifest.read(scratch / MANIFEST).files}
    before = {file.name for file in Manifest.read(earlier).files} if earlier.stat().st_size else set()
    move_files(scratch, directory, new, before - new)
    (scratch / MANIFEST).replace(directory / MANIFEST)
    sync(directory)


def _may_be_on_its_way(scratch: Path) -> bool:
    """Tell the same, and yes where the disk does not say: what is left is seen to by the next writer."""
    try:
        return _is_on_its_way(scratch)
    except OSError:
        return True


def _is_on_its_way(scratch: Path) -> bool:
    """Tell whether a killed process had begun to move files out of a scratch directory."""
    return (scratch / EARLIER).exists() and (scratch / MANIFEST).exists()


def _stem(directory: Path) -> str:
    """Return what names of a directory's lock and scratch directories begin with, after a dot."""
    name = directory.name
    return name if len(os.fsencode(name)) <= LONGEST_STEM else digest_of(name)


def own_name(directory: Path) -> re.Pattern[str]:
    """Return the pattern of names of a directory's lock and scratch directories."""
    return re.compile(rf"\.{re.escape(_stem(directory))}\.([0-9a-f]{{16}}(\.old)?|lock(\.holder)?)$")


def _first(directory: Path, path: Path) -> str:
    return path.relative_to(directory).parts[0]
