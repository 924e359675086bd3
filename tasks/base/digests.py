"""SHA-256 of files, computed once and remembered while a file is unchanged."""

import hashlib
import logging
import os
import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Iterable
from contextlib import closing, suppress
from pathlib import Path

import diskcache

from tasks.base.directories import cache_dir
from tasks.base.errors import one_line
from tasks.base.records import FileDigest

log = logging.getLogger(__name__)

FAULTS = (sqlite3.Error, diskcache.Timeout, OSError, ValueError, TypeError, KeyError, AttributeError)
"""What a cache raises that is full, damaged, read-only or held by another process; its settings are in it."""

LOCKED_S = 5.0
"""How long to wait for another process's transaction, which takes milliseconds."""

CLOCK_TICK_NS = 100_000_000
"""Generous bound on the resolution of file times."""

_TOLD: set[Path] = set()
_TELLING = threading.Lock()
"""Threads digest side by side, and one of them says what does not work."""

_HASHING: defaultdict[tuple[int, ...], threading.Lock] = defaultdict(threading.Lock)
"""By file: adapters share a base, and who asks second waits for what the first computes."""


def file_digests(directory: Path, paths: Iterable[Path]) -> tuple[FileDigest, ...]:
    """Digest files below `directory`, in name order."""
    named = sorted((path.relative_to(directory).as_posix(), path) for path in paths)
    with _Known() as known:
        return tuple(
            FileDigest(name=name, size=path.stat().st_size, sha256=_sha256(path, known))
            for name, path in named
        )


def sha256_of(path: Path) -> str:
    """Return a file's SHA-256."""
    with _Known() as known:
        return _sha256(path, known)


def remember(path: Path, sha256: str) -> None:
    """Remember the digest of a file that was computed while it was written."""
    with _Known() as known:
        known.set(_identity(path.stat()), sha256)


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

    def get(self, seen: tuple[int, ...]) -> str | None:
        """Return a digest that is remembered."""
        try:
            found = self._cache and self._cache.get(seen)
        except FAULTS as error:
            self._give_up(error)
            return None
        return found if isinstance(found, str) else None

    def set(self, seen: tuple[int, ...], digest: str) -> None:
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
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _sha256(path: Path, known: _Known) -> str:
    """Digest a file, unless its inode, size and times are those of the last digest (as git's index does)."""
    stat = path.stat()
    seen = _identity(stat)
    with _HASHING[seen]:
        if (digest := known.get(seen)) is not None:
            return digest
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        # A file written within one tick of its timestamps could change again unseen.
        if time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) > CLOCK_TICK_NS:
            known.set(seen, digest)
    return digest
