"""The journal of finished tensors, from which a killed merge resumes where it stopped.

One line for each tensor, in the order of the weight files, with the BLAKE3 of its file up to the tensor's
end: one pass of hashing verifies what an earlier process wrote and gives the digest of the whole file. What
this process writes is digested on its way there.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from blake3 import blake3
from pydantic import ValidationError

from tasks.base.measures import TensorMeasures
from tasks.base.records.record import Record
from tasks.base.running_digest import RunningDigest
from tasks.checkpoints.numbers import Numbers, as_bytes
from tasks.engine.shards import Shard, Spec

JOURNAL = ".journal"
HASHED_AT_ONCE = 2**22
SYNC_EVERY = 2**26
"""Bytes after which a file is synced: while other threads compute, instead of all at the end."""

_Begun: TypeAlias = tuple[blake3, int]


class FinishedTensor(Record):
    """A finished tensor."""

    tensor: str
    blake3: str
    """Of the weight file, up to and including this tensor."""
    measures: TensorMeasures


class Journal:
    """Digests finished tensors in order and records them."""

    def __init__(self, directory: Path, shards: Sequence[Shard], spec: Spec) -> None:
        self._spec = spec
        self._places = {name: shard for shard in shards for name in shard.offsets}
        self._path = directory / JOURNAL
        self._unsynced = 0
        self.finished, begun = self._verified(shards)
        self._digests = {shard.path: self._running(shard, *begun[shard.path]) for shard in shards}
        self._rewrite()

    def wrote(self, tensor: str, first_byte: int, numbers: Numbers) -> None:
        """Take part of a tensor that was written at its place, once; the array must not change any more."""
        shard = self._places[tensor]
        self._digests[shard.path].passed(shard.offsets[tensor] + first_byte, as_bytes(numbers))

    def finish(self, tensor: str, measures: TensorMeasures) -> None:
        """Record that a tensor, the next in order, is written."""
        digest = self._digests[self._places[tensor].path].up_to(self._end(tensor))
        self.finished[tensor] = measures
        self._write("a", [FinishedTensor(tensor=tensor, blake3=digest, measures=measures)])
        self._unsynced += self._spec[tensor].size
        if self._unsynced >= SYNC_EVERY:
            os.fsync(self._places[tensor].handle)
            self._unsynced = 0

    def close(self) -> dict[Path, str]:
        """Remove the journal; return the BLAKE3 of every weight file."""
        self._path.unlink()
        last = {shard.path: name for name, shard in self._places.items()}
        return {path: self._digests[path].up_to(self._end(name)) for path, name in last.items()}

    def _verified(self, shards: Sequence[Shard]) -> tuple[dict[str, TensorMeasures], dict[Path, _Begun]]:
        """Return an earlier process's tensors, up to the first whose bytes do not match its digest.

        And of every file how far that is, with the digest up to there.
        """
        found: dict[str, TensorMeasures] = {}
        begun = {shard.path: (blake3(shard.header), len(shard.header)) for shard in shards}
        for name, entry in zip(self._places, _entries(self._path), strict=False):
            shard = self._places[name]
            digest = begun[shard.path][0].copy()  # hashing cannot be undone
            for chunk in _chunks(shard.handle, shard.offsets[name], self._spec[name].size):
                digest.update(chunk)
            if entry.tensor != name or entry.blake3 != digest.hexdigest():
                break
            begun[shard.path] = digest, self._end(name)
            found[name] = entry.measures
        return found, begun

    def _running(self, shard: Shard, begun: blake3, at: int) -> RunningDigest:
        return RunningDigest(shard.path, shard.handle, map(self._end, shard.offsets), begun, at)

    def _end(self, tensor: str) -> int:
        return self._places[tensor].offsets[tensor] + self._spec[tensor].size

    def _rewrite(self) -> None:
        """Drop the lines that could not be verified."""
        self._write("w", list(_entries(self._path))[: len(self.finished)])

    def _write(self, mode: Literal["a", "w"], entries: Sequence[FinishedTensor]) -> None:
        # Not synced: after a power cut a line without its data fails verification, and is dropped.
        with self._path.open(mode, encoding="utf-8") as file:
            file.writelines(entry.model_dump_json() + "\n" for entry in entries)


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
