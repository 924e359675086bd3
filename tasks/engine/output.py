"""One model that is being written: its files, its journal, and the tensors that are still to come."""

from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tasks.base.errors import BadInput
from tasks.base.measures import TensorMeasures
from tasks.checkpoints.numbers import Numbers, all_finite, encode
from tasks.engine.cut import BLOCK
from tasks.engine.journal import Journal
from tasks.engine.shards import Shard, Spec, open_shards, write_numbers


class Written(NamedTuple):
    """What came of a variant."""

    measures: dict[str, TensorMeasures]
    """By tensor."""
    digests: dict[Path, str]
    """SHA-256 of the weight files."""


class Output:
    """Takes tensors in any order, from any thread; of those an earlier process finished it takes nothing."""

    def __init__(self, journal: Journal, spec: Spec, shards: dict[str, Shard]) -> None:
        self._journal = journal
        self._spec = spec
        self._shards = shards
        self._coming: dict[str, Future[TensorMeasures]] = {
            name: Future() for name in spec if name not in journal.finished
        }

    def lacks(self, name: str) -> bool:
        """Say whether a tensor is still to come; on what is there already, a digest has been taken."""
        return name in self._coming

    def write(self, name: str, first: int, values: Numbers) -> None:
        """Write part of a tensor, from its element `first` on, rounded once (BadInput on overflow)."""
        if not self.lacks(name):
            return
        dtype = self._spec[name].dtype
        for start in range(0, values.size, BLOCK):  # rounding a whole matrix would take as much memory again
            numbers = encode(values[start : start + BLOCK], dtype)
            if not all_finite(numbers, dtype):
                raise BadInput(
                    "", f"the merge overflows {dtype}", "choose a smaller merge.lam, or a wider merge.dtype"
                )
            write_numbers(self._shards[name], name, (first + start) * numbers.itemsize, numbers)

    def copy(self, name: str, stored: Numbers) -> None:
        """Write a whole tensor as it is stored."""
        if self.lacks(name):
            write_numbers(self._shards[name], name, 0, stored)
            self.complete(name, TensorMeasures())

    def complete(self, name: str, measures: TensorMeasures) -> None:
        """Say that a tensor is written, and what is known of it."""
        if self.lacks(name):
            self._coming[name].set_result(measures)

    def fail(self, name: str, error: BaseException) -> None:
        """Say why a tensor will not come."""
        if self.lacks(name) and not self._coming[name].done():
            self._coming[name].set_exception(error)

    def finish(self, name: str) -> None:
        """Wait for a tensor, the next in order, and note it down; raises what stood in its way."""
        if self.lacks(name):
            self._journal.finish(name, self._coming[name].result())

    def close(self) -> Written:
        """End the journal; return measures and digests."""
        return Written(dict(self._journal.finished), self._journal.close())


@contextmanager
def open_output(directory: Path, spec: Spec, max_shard_bytes: int) -> Iterator[Output]:
    """Create or reopen a model's weight files, taking up what a killed execution left there."""
    with open_shards(directory, spec, max_shard_bytes) as shards:
        places = {name: shard for shard in shards for name in shard.offsets}
        yield Output(Journal(directory, shards, spec), spec, places)
