"""The journal of finished tensors, from which a killed merge resumes where it stopped.

One line for each tensor, in the order of the weight files, with the BLAKE3 of its file up to the tensor's
end: one pass of hashing verifies what an earlier process wrote and gives the digest of the whole file.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from blake3 import blake3
from pydantic import ValidationError

from tasks.base.measures import TensorMeasures
from tasks.base.records.record import Record
from tasks.engine.shards import Shard, Spec

JOURNAL = ".journal"
HASHED_AT_ONCE = 2**22
SYNC_EVERY = 2**26
"""Bytes after which a file is synced: while other threads compute, instead of all at the end."""


class FinishedTensor(Record):
    """A finished tensor."""

    tensor: str
    blake3: str
    """Of the weight file, up to and including this tensor."""
    measures: TensorMeasures


class Journal:
    """Hashes finished tensors in order and records them."""

    def __init__(self, directory: Path, shards: Sequence[Shard], spec: Spec) -> None:
        self._spec = spec
        self._places = {name: shard for shard in shards for name in shard.offsets}
        self._hashes = {shard.path: blake3(shard.header) for shard in shards}
        self._path = directory / JOURNAL
        self._unsynced = 0
        self.finished = self._verified()
        self._rewrite()

    def finish(self, tensor: str, measures: TensorMeasures) -> None:
        """Record that a tensor, the next in order, is written."""
        entry = FinishedTensor(tensor=tensor, blake3=self._hashed(tensor), measures=measures)
        self.finished[tensor] = measures
        self._write("a", [entry])
        self._unsynced += self._spec[tensor].size
        if self._unsynced >= SYNC_EVERY:
            os.fsync(self._places[tensor].handle)
            self._unsynced = 0

    def close(self) -> dict[Path, str]:
        """Remove the journal; return the BLAKE3 of every weight file."""
        self._path.unlink()
        return {path: hash_.hexdigest() for path, hash_ in self._hashes.items()}

    def _verified(self) -> dict[str, TensorMeasures]:
        """Return an earlier process's tensors, up to the first whose bytes do not match its digest."""
        found: dict[str, TensorMeasures] = {}
        for name, entry in zip(self._places, _entries(self._path), strict=False):
            # hashing cannot be undone: a mismatch goes back to the state before this tensor
            before = self._hashes[self._places[name].path].copy()
            if entry.tensor != name or entry.blake3 != self._hashed(name):
                self._hashes[self._places[name].path] = before
                break
            found[name] = entry.measures
        return found

    def _rewrite(self) -> None:
        """Drop the lines that could not be verified."""
        self._write("w", list(_entries(self._path))[: len(self.finished)])

    def _write(self, mode: Literal["a", "w"], entries: Sequence[FinishedTensor]) -> None:
        # Not synced: after a power cut a line without its data fails verification, and is dropped.
        with self._path.open(mode, encoding="utf-8") as file:
            file.writelines(entry.model_dump_json() + "\n" for entry in entries)

    def _hashed(self, tensor: str) -> str:
        shard = self._places[tensor]
        hash_ = self._hashes[shard.path]
        for chunk in _chunks(shard.handle, shard.offsets[tensor], self._spec[tensor].size):
            hash_.update(chunk)
        return hash_.hexdigest()


def _chunks(handle: int, start: int, size: int) -> Iterator[bytes]:
    for offset in range(start, start + size, HASHED_AT_ONCE):
        yield os.pread(handle, min(HASHED_AT_ONCE, start + size - offset), offset)


def _entries(path: Path) -> Iterator[FinishedTensor]:
    """Read lines up to the first that is incomplete or in another release's format."""
    if path.exists():
        for line in path.read_bytes().splitlines():
            try:
                yield FinishedTensor.model_validate_json(line)
            except ValidationError:
                return
