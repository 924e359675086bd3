"""SHA-256 of files, computed once and remembered while a file is unchanged."""

import hashlib
import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import diskcache

from tasks.base.directories import cache_dir
from tasks.base.records import FileDigest

CLOCK_TICK_NS = 100_000_000
"""Generous bound on the resolution of file times."""

_HASHING: defaultdict[tuple[int, ...], threading.Lock] = defaultdict(threading.Lock)
"""By file: adapters share a base, and who asks second waits for what the first computes."""


def file_digests(directory: Path, paths: Iterable[Path]) -> tuple[FileDigest, ...]:
    """Digest files below `directory`, in name order."""
    named = sorted((path.relative_to(directory).as_posix(), path) for path in paths)
    with _known() as known:
        return tuple(
            FileDigest(name=name, size=path.stat().st_size, sha256=_sha256(path, known))
            for name, path in named
        )


def sha256_of(path: Path) -> str:
    """Return a file's SHA-256."""
    with _known() as known:
        return _sha256(path, known)


def remember(path: Path, sha256: str) -> None:
    """Remember the digest of a file that was computed while it was written."""
    with _known() as known:
        known.set(_identity(path.stat()), sha256)


def _known() -> diskcache.Cache:
    return diskcache.Cache(str(cache_dir() / "digests"))


def _identity(stat: os.stat_result) -> tuple[int, ...]:
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _sha256(path: Path, known: diskcache.Cache) -> str:
    """Digest a file, unless its inode, size and times are those of the last digest (as git's index does)."""
    stat = path.stat()
    seen = _identity(stat)
    with _HASHING[seen]:
        if (digest := known.get(seen)) is not None:
            return str(digest)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        # A file written within one tick of its timestamps could change again unseen.
        if time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) > CLOCK_TICK_NS:
            known.set(seen, digest)
    return digest
