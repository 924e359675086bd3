"""The BLAKE3 of a file from its parts, while others read or write them: so it need not be read once more.

Parts come from several threads, nearly in the file's order; what comes early waits for its turn.
"""

import os
from collections.abc import Iterable
from heapq import heappop, heappush
from itertools import count
from pathlib import Path
from threading import Lock

from blake3 import blake3

from tasks.base.errors import BadInput

KEPT_BYTES = 2**25
"""Bytes that may wait; what comes on top is read from the file when its turn has come."""
BYTES_AT_ONCE = 2**18
"""Bytes: they stay in the processor's cache."""


class RunningDigest:
    """Digests a file in its order, as far as its parts have passed; what has not passed is read on demand."""

    def __init__(
        self, path: Path, handle: int, ends: Iterable[int], begun: blake3 | None = None, at: int = 0
    ) -> None:
        """Go on from `at`, up to which `begun` has come; digests up to each of `ends` will be asked for."""
        self._path = path
        self._handle = handle
        self._ends = sorted({end for end in ends if end > at}, reverse=True)
        self._hash = begun or blake3()
        self._at = at
        self._digests = {at: self._hash.hexdigest()}
        self._waiting: list[tuple[int, int, int, memoryview | None]] = []
        self._kept = 0
        self._numbers = count()
        # `turn` is held by the one thread that digests, `state` by anyone for a moment.
        self._turn, self._state = Lock(), Lock()

    def passed(self, first: int, part: memoryview) -> None:
        """Take the bytes that begin at a place of the file; they must not change any more.

        They are digested now, if their turn has come and no other thread is at it; else when the next pass.
        Nobody digests more than comes before his own: memory that is passed on is no longer in the cache.
        """
        last = first + len(part)
        self._wait(first, last, part)
        if self._turn.acquire(blocking=False):
            try:
                self._take_due(last)
            finally:
                self._turn.release()

    def absent(self, first: int, last: int) -> None:
        """Say that the bytes from `first` up to `last` will not pass."""
        self._wait(first, last, None)

    def up_to(self, end: int) -> str:
        """Return the digest of the file up to one of the ends; what has not passed is read."""
        while end not in self._digests:
            with self._turn:
                self._take_due(end)
                if self._at < end:
                    with self._state:
                        following = self._waiting[0][0] if self._waiting else end
                    self._take(min(following, end), None)
        return self._digests[end]

    def _wait(self, first: int, last: int, part: memoryview | None) -> None:
        with self._state:
            if last <= self._at:
                return
            if part is not None and first > self._at:
                part = part if self._kept + len(part) <= KEPT_BYTES else None
            self._kept += len(part or b"")
            heappush(self._waiting, (first, next(self._numbers), last, part))

    def _is_due(self) -> bool:
        with self._state:
            return bool(self._waiting) and self._waiting[0][0] <= self._at

    def _take_due(self, until: int) -> None:
        while self._at < until and self._is_due():
            with self._state:
                first, _, last, part = heappop(self._waiting)
                self._kept -= len(part or b"")
            self._take(last, None if part is None else part[self._at - first :])

    def _take(self, last: int, part: memoryview | None) -> None:
        """Digest from where it has come up to `last`; what is not given is read."""
        while self._at < last:
            stop = min(last, self._ends[-1])
            chunk = (
                self._read(min(stop - self._at, BYTES_AT_ONCE)) if part is None else part[: stop - self._at]
            )
            self._hash.update(chunk)
            at = self._at + len(chunk)
            part = None if part is None else part[len(chunk) :]
            if at == self._ends[-1]:
                self._digests[self._ends.pop()] = self._hash.hexdigest()
            self._at = at

    def _read(self, size: int) -> bytes:
        if chunk := os.pread(self._handle, size, self._at):
            return chunk
        raise BadInput(self._path, "became shorter while it was read", "fetch the checkpoint again")
