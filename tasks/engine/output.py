"""One model that is being written: its files, its journal, and the tensors still missing."""

from collections.abc import Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tasks.base.errors import BadInput
from tasks.base.measures import TensorMeasures
from tasks.checkpoints.numbers import STORED, Numbers, all_finite, encode
from tasks.engine.cut import BLOCK
from tasks.engine.journal import Journal
from tasks.engine.shards import Shard, Spec, open_shards, write_numbers
from tasks.merging.arrays import Array, of_numpy, to_numpy
from tasks.merging.deferred import Deferred
from tasks.merging.on_device import rounded_there


class Written(NamedTuple):
    """The result of writing a variant."""

    measures: dict[str, TensorMeasures]
    """By tensor."""
    digests: dict[Path, str]
    """BLAKE3 of the weight files."""


class Output:
    """Takes tensors in any order from any thread, and ignores those that an earlier process finished."""

    def __init__(self, journal: Journal, spec: Spec, shards: dict[str, Shard]) -> None:
        self._journal = journal
        self._spec = spec
        self._shards = shards
        self._missing: dict[str, Future[TensorMeasures]] = {
            name: Future() for name in spec if name not in journal.finished
        }

    def lacks(self, name: str) -> bool:
        """Tell whether a tensor is still missing; the others are hashed and must not be written again."""
        return name in self._missing

    def write(self, name: str, first: int, values: Array) -> None:
        """Write part of a tensor, from its element `first` on, rounded once (BadInput on overflow)."""
        if not self.lacks(name):
            return
        dtype = self._spec[name].dtype
        # a GPU that runs out of memory leaves a block to the CPU, which writes it again
        once = of_numpy(values)
        for numbers in _rounded(values, dtype):
            if not all_finite(numbers, dtype):
                raise BadInput(
                    "", f"the merge overflows {dtype}", "choose a smaller merge.lam, or a wider merge.dtype"
                )
            write_numbers(self._shards[name], name, first * numbers.itemsize, numbers)
            if once:
                self._journal.wrote(name, first * numbers.itemsize, numbers)
            first += numbers.size

    def copy(self, name: str, stored: Numbers) -> None:
        """Write a whole tensor as it is stored."""
        if self.lacks(name):
            write_numbers(self._shards[name], name, 0, stored)
            self._journal.wrote(name, 0, stored)
            self.complete(name, TensorMeasures())

    def complete(self, name: str, measures: TensorMeasures) -> None:
        """Mark a tensor as written, with its measures."""
        if self.lacks(name):
            self._missing[name].set_result(measures)

    def fail(self, name: str, error: BaseException) -> None:
        """Mark a tensor as failed; `finish` raises the error."""
        if self.lacks(name) and not self._missing[name].done():
            self._missing[name].set_exception(error)

    @property
    def unfinished(self) -> list[str]:
        """The tensors that are not written yet."""
        return [name for name, future in self._missing.items() if not future.done()]

    def is_ready(self, name: str, seconds: float) -> bool:
        """Wait so long at most for a tensor to be written, or to fail; tell whether it is."""
        return not self.lacks(name) or bool(wait([self._missing[name]], seconds).done)

    def finish(self, name: str) -> None:
        """Wait for a tensor, the next in order, and record it; raises the error that it failed with."""
        if self.lacks(name):
            self._journal.finish(name, self._missing[name].result())

    def close(self) -> Written:
        """Close the journal; return measures and digests."""
        return Written(dict(self._journal.finished), self._journal.close())


def _rounded(values: Array, dtype: str) -> Iterator[Numbers]:
    if not of_numpy(values):
        numbers = rounded_there(values, dtype)
    elif isinstance(values, Deferred):
        numbers = values.rounded(dtype, np.empty(values.size, STORED[dtype]))
    else:
        numbers = None
    if numbers is not None:
        yield numbers
        return
    flat = to_numpy(values).reshape(-1)
    for start in range(
        0, flat.size, BLOCK
    ):  # a rounded copy of a whole matrix would take as much memory again
        yield encode(flat[start : start + BLOCK], dtype)


@contextmanager
def open_output(directory: Path, spec: Spec, max_shard_bytes: int) -> Iterator[Output]:
    """Create or reopen a model's weight files, resuming what a killed execution left there."""
    with open_shards(directory, spec, max_shard_bytes) as shards:
        places = {name: shard for shard in shards for name in shard.offsets}
        yield Output(Journal(directory, shards, spec), spec, places)
