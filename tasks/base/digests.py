"""BLAKE3 of files, and SHA-256 where others know a file by it: computed once while a file is unchanged."""

import hashlib
import logging
import os
import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import diskcache
from blake3 import blake3

from tasks.base.directories import cache_dir
from tasks.base.errors import one_line
from tasks.base.records.record import FileDigest

log = logging.getLogger(__name__)

FAULTS = (sqlite3.Error, diskcache.Timeout, OSError, ValueError, TypeError, KeyError, AttributeError)
"""What a cache raises that is full, damaged, read-only or held by another process; its settings are in it."""

LOCKED_S = 5.0
"""How long to wait for another process's transaction, which takes milliseconds."""

CLOCK_TICK_NS = 100_000_000
"""Generous bound on the resolution of file times."""

Algorithm = Literal["blake3", "sha256"]
ALGORITHMS: tuple[Algorithm, ...] = get_args(Algorithm)
DIGESTED_AT_ONCE = 2**18
"""Bytes: they stay in the processor's cache."""

_TOLD: set[Path] = set()
_TELLING = threading.Lock()
"""Threads digest side by side, and one of them says what does not work."""

FileKey: TypeAlias = tuple[int | str, ...]

_HASHING: defaultdict[FileKey, threading.Lock] = defaultdict(threading.Lock)
"""By file: adapters share a base, and who asks second waits for what the first computes."""


def file_digests(
    directory: Path, paths: Iterable[Path], like: Iterable[FileDigest] = ()
) -> tuple[FileDigest, ...]:
    """Digest files below `directory`, in name order; by SHA-256 what `like`, to be compared, has it of."""
    by_sha256 = {file.name for file in like if file.sha256}
    return _digests(directory, paths, by_sha256.__contains__)


def digests_of(paths: Iterable[Path]) -> tuple[FileDigest, ...]:
    """Digest files of any directories, in the order given."""
    with _Known() as known:
        return tuple(_file_digest(path.name, path, False, known) for path in paths)


def sha256_digests(directory: Path, paths: Iterable[Path]) -> tuple[FileDigest, ...]:
    """Digest files below `directory` as releases did that knew SHA-256 only, in name order."""
    return _digests(directory, paths, lambda name: True)


def bytes_digest(name: str, data: bytes, like: FileDigest) -> FileDigest:
    """Digest what is to be a file beside another one, by the same algorithm."""
    if like.sha256:
        return FileDigest(name=name, size=len(data), sha256=hashlib.sha256(data).hexdigest())
    return FileDigest(name=name, size=len(data), blake3=blake3(data).hexdigest())


def sha256_of(path: Path) -> str:
    """Return a file's SHA-256, by which the Hub knows it."""
    with _Known() as known:
        return _digest(path, "sha256", known)


def unknown(states: Mapping[Path, os.stat_result]) -> list[Path]:
    """Return the files whose BLAKE3 in these states has to be computed."""
    with _Known() as known:
        return [path for path, state in states.items() if known.get(_key(state, "blake3")) is None]


def remember(found: Iterable[tuple[os.stat_result, str]]) -> None:
    """Remember the BLAKE3 of files, by their states when writing them ended, or reading them began."""
    with _Known() as known:
        for state, digest in found:
            known.set(_key(state, "blake3"), digest)


def is_settled(state: os.stat_result) -> bool:
    """Tell whether a change from now on would show in the file's times: within a clock's tick it may not."""
    return time.time_ns() - max(state.st_mtime_ns, state.st_ctime_ns) > CLOCK_TICK_NS


@contextmanager
def linking(paths: Iterable[Path]) -> Iterator[None]:
    """Keep what is remembered of files that are given other names meanwhile, which changes their ctimes."""
    before = {path: path.stat() for path in paths}
    yield
    with _Known() as known:
        for path, then in before.items():
            if not path.exists():
                continue
            now = path.stat()
            if _identity(then)[:-1] != _identity(now)[:-1]:
                continue
            for algorithm in ALGORITHMS:
                if found := known.get(_key(then, algorithm)):
                    known.set(_key(now, algorithm), found)


class _Known:
    """Digests by file; a cache that is full, damaged or held costs time, nothing else."""

    def __init__(self) -> None:
        self._directory = cache_dir() / "digests"
        self._cache: diskcache.Cache | None = None

    def __enter__(self) -> "_Known":
        try:
            self._wait()
            self._cache = diskcache.Cache(str(self._directory), timeout=LOCKED_S)
        except FAULTS as error:
            self._give_up(error)
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _wait(self) -> None:
        """Wait for another process's transaction: diskcache would for a minute, whatever its timeout."""
        database = self._directory / diskcache.core.DBNAME
        if database.exists():
            with closing(sqlite3.connect(database, timeout=LOCKED_S, isolation_level=None)) as connection:
                connection.execute("BEGIN IMMEDIATE")

    def get(self, seen: FileKey) -> str | None:
        """Return a digest that is remembered."""
        try:
            found = self._cache and self._cache.get(seen)
        except FAULTS as error:
            self._give_up(error)
            return None
        return found if isinstance(found, str) else None

    def set(self, seen: FileKey, digest: str) -> None:
        """Remember a digest, where that is possible."""
        try:
            if self._cache is not None:
                self._cache.set(seen, digest)
        except FAULTS as error:
            self._give_up(error)

    def _close(self) -> None:
        if self._cache is not None:
            with suppress(*FAULTS):
                self._cache.close()
            self._cache = None

    def _give_up(self, error: BaseException) -> None:
        with _TELLING:
            if self._directory not in _TOLD:
                _TOLD.add(self._directory)
                log.warning(
                    "%s: cannot be used (%s), so files are digested again each time; make room there, or "
                    "remove it",
                    self._directory,
                    one_line((isinstance(error, OSError) and error.strerror) or str(error)),
                )
        self._close()


def _identity(stat: os.stat_result) -> tuple[int, ...]:
    """Return what changes when a file does, its ctime last."""
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _key(stat: os.stat_result, algorithm: Algorithm) -> FileKey:
    """Return what a digest is remembered by; a SHA-256 as releases did that knew no other."""
    seen = _identity(stat)
    return seen if algorithm == "sha256" else (*seen, algorithm)


def _digests(
    directory: Path, paths: Iterable[Path], by_sha256: Callable[[str], bool]
) -> tuple[FileDigest, ...]:
    named = sorted((path.relative_to(directory).as_posix(), path) for path in paths)
    with _Known() as known:
        return tuple(_file_digest(name, path, by_sha256(name), known) for name, path in named)


def _file_digest(name: str, path: Path, by_sha256: bool, known: _Known) -> FileDigest:
    size = path.stat().st_size
    if by_sha256:
        return FileDigest(name=name, size=size, sha256=_digest(path, "sha256", known))
    return FileDigest(name=name, size=size, blake3=_digest(path, "blake3", known))


def _digest(path: Path, algorithm: Algorithm, known: _Known) -> str:
    """Digest a file, unless its inode, size and times are those of the last digest (as git's index does)."""
    stat = path.stat()
    key = _key(stat, algorithm)
    with _HASHING[key]:
        if (digest := known.get(key)) is not None:
            return digest
        digest = _computed(path, algorithm)
        if is_settled(stat):
            known.set(key, digest)
    return digest


def _computed(path: Path, algorithm: Algorithm) -> str:
    """Read a file and digest it. It is not mapped: one that is cut meanwhile would kill the process.

    In this thread alone: BLAKE3's own threads gain a tenth, and take half as much CPU again beside a merge.
    """
    with path.open("rb", buffering=0) as file:
        if algorithm == "sha256":
            return hashlib.file_digest(file, "sha256").hexdigest()
        digest, buffer = blake3(), memoryview(bytearray(DIGESTED_AT_ONCE))
        while size := file.readinto(buffer):
            digest.update(buffer[:size])
        return digest.hexdigest()
