"""SHA-256 of files, computed once for as long as a file stays as it is."""

import hashlib
import time
from collections.abc import Iterable
from pathlib import Path

import diskcache

from tasks.home import cache
from tasks.records import FileDigest

CLOCK_TICK_NS = 100_000_000


def file_digests(directory: Path, paths: Iterable[Path]) -> tuple[FileDigest, ...]:
    """Digest files below `directory`, in name order."""
    named = sorted((path.relative_to(directory).as_posix(), path) for path in paths)
    return tuple(
        FileDigest(name=name, size=path.stat().st_size, sha256=sha256_of(path)) for name, path in named
    )


def sha256_of(path: Path) -> str:
    """Return a file's SHA-256, remembered by what changes whenever its content does (as git's index does)."""
    stat = path.stat()
    seen = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    with diskcache.Cache(str(cache() / "digests")) as known:
        if (digest := known.get(seen)) is not None:
            return str(digest)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        # A file written within one tick of its timestamps could change again unseen.
        if time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) > CLOCK_TICK_NS:
            known.set(seen, digest)
    return digest
