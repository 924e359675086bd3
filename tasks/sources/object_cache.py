"""Objects of stores on this machine: each version is downloaded once, going on where it was stopped."""

import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.base.errors import BadInput, LorelineError, Unavailable
from tasks.base.json_digest import digest_of
from tasks.sources.object_client import StoredObject, still_there, store_errors
from tasks.sources.readiness import NotReady

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

CHUNK = 8 << 20
"""Bytes of one ranged read."""
READS_AT_ONCE = 8
"""Ranged reads at a time, where the store's client can."""
SAID_EVERY_S = 9.0


class Arrivals:
    """Says on stderr how much of a run has come, every few seconds."""

    def __init__(self, address: str, total: int) -> None:
        self._address, self._total, self._done, self._read = address, total, 0, 0
        self._start = self._told = time.monotonic()

    def kept(self, size: int) -> None:
        """Count bytes that were here already."""
        self._done += size

    def came(self, size: int) -> None:
        """Count bytes that were downloaded."""
        self._done, self._read = self._done + size, self._read + size
        now = time.monotonic()
        if now - self._told > SAID_EVERY_S:
            self._told = now
            left = (now - self._start) / self._read * max(self._total - self._done, 0)
            self._say(f"{self._done / 1e6:.0f} of {self._total / 1e6:.0f} MB, {left:.0f} s left")

    def end(self) -> None:
        """Say what was downloaded, where anything was."""
        if self._read:
            self._say(f"{self._read / 1e6:.1f} MB downloaded in {time.monotonic() - self._start:.1f} s")

    def _say(self, text: str) -> None:
        print(f"fetch: {self._address}: {text}", file=sys.stderr, flush=True)


def bring_object(
    store: "AbstractFileSystem", address: str, wanted: StoredObject, cache: Path, arrivals: Arrivals
) -> Path:
    """Return the file of an object in `cache`, a directory; `address` is the folder's, for messages.

    Raises NotReady when the object is not the one that was listed any more.
    """
    target = cache_file(wanted, cache)
    if target.exists():
        arrivals.kept(wanted.size)
        return target
    partial = target.with_name(f"{target.name}.part")
    try:
        with partial.open("ab") as file:
            arrivals.kept(file.tell())
            while (start := file.tell()) < wanted.size:
                for block in _read(store, address, wanted, start):
                    file.write(block)
                    arrivals.came(len(block))
                file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise LorelineError(
            partial, f"cannot be written ({error.strerror})", "make room, or set XDG_CACHE_HOME"
        ) from None
    with store_errors(address):
        unchanged = still_there(store, wanted)
    if not unchanged:
        partial.unlink()
        raise _changed(wanted)
    return partial.replace(target)


def lacking_bytes(wanted: Iterable[StoredObject], cache: Path) -> int:
    """Return how many bytes of some objects are not in `cache` yet."""
    lacking = {cache_file(each, cache): each.size for each in wanted}
    parts = [path.with_name(f"{path.name}.part") for path in lacking if not path.exists()]
    there = sum(part.stat().st_size for part in parts if part.exists())
    return sum(size for path, size in lacking.items() if not path.exists()) - there


def cache_file(wanted: StoredObject, cache: Path) -> Path:
    """Return where the file of an object is: its path and version name it."""
    return cache / digest_of([wanted.path, wanted.version])


def prune_objects(cache: Path, keep: Iterable[StoredObject]) -> None:
    """Remove the files of other objects; what checkpoints hold of them are links."""
    kept = {cache_file(wanted, cache).name for wanted in keep}
    for path in cache.iterdir():
        if path.name.removesuffix(".part") not in kept:
            path.unlink()


def _read(store: "AbstractFileSystem", address: str, wanted: StoredObject, start: int) -> list[bytes]:
    """Read the next blocks of an object; the clients of stores try again themselves."""
    starts = list(range(start, wanted.size, CHUNK)[:READS_AT_ONCE])  # the size may be a lie
    ends = [min(each + CHUNK, wanted.size) for each in starts]
    with store_errors(address):
        try:
            blocks = store.cat_ranges([wanted.path] * len(starts), starts, ends, on_error="raise")
            return _whole(address, wanted.name, blocks, ends[-1] - start)
        except Exception as error:  # of another size, and even a range of it may be an error
            if isinstance(error, FileNotFoundError) or not still_there(store, wanted):
                raise _changed(wanted) from None
            raise


def _whole(address: str, name: str, blocks: list[bytes], asked: int) -> list[bytes]:
    came = sum(map(len, blocks))
    if came > asked:
        raise BadInput(address, "its server does not send parts of files", "copy the run to another store")
    if came < asked:
        raise Unavailable(address, f"{name} came with {came} bytes of {asked}", "try again")
    return blocks


def _changed(wanted: StoredObject) -> NotReady:
    return NotReady(f"{wanted.name} changed while it was read")
