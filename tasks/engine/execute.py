"""Carrying out a plan: every core or GPU reads, computes and writes blocks; tensors finish in order."""

import math
import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

import numpy as np

from tasks.checkpoints.numbers import Numbers, all_finite, compute_dtype, encode
from tasks.checkpoints.weights import NotFinite
from tasks.engine.cut import Piece, cut
from tasks.engine.devices import CPU, threads_for
from tasks.engine.journal import Journal
from tasks.engine.memory import keep_freed_pages
from tasks.engine.plan import Plan
from tasks.engine.shards import Shard, open_shards, write_numbers
from tasks.errors import BadInput, LorelineError
from tasks.merging.arrays import to_numpy
from tasks.merging.block import Block
from tasks.merging.deviation import Deviation, describe, deviation, join
from tasks.merging.program import Facts, Finish, Measure, worst
from tasks.threads import one_thread_each

OnTensor = Callable[[str, int, int], None]
"""Called with a tensor's name once it is merged, the bytes merged so far, and all bytes."""

HELD = 2**26
"""Bytes up to which a tensor that is measured first is kept in memory, instead of being read again."""

THREADS_PER_GPU = 2
"""One reads and writes while the other computes."""


class Merged(NamedTuple):
    """What came of a plan."""

    facts: dict[str, Facts]
    """By tensor."""
    digests: dict[Path, str]
    """SHA-256 of the weight files."""


def execute(
    plan: Plan,
    directory: Path,
    max_shard_bytes: int,
    devices: Sequence[str],
    on_tensor: OnTensor = lambda name, done, total: None,
) -> Merged:
    """Write the weight files of a merge into `directory`, taking up what a killed execution left there.

    Raises BadInput for NaN, overflow and integers that differ; LorelineError when a method fails.
    """
    keep_freed_pages()
    with open_shards(directory, plan.spec, max_shard_bytes) as shards:
        journal = Journal(directory, shards, plan.spec)
        with one_thread_each(plan.method.whole), _Workers(plan, shards, devices) as workers:
            tensors = workers.start(set(plan.spec) - set(journal.finished))
            done = 0
            for name, stored in plan.spec.items():
                if name in tensors:
                    journal.finish(name, tensors[name].result())
                done += stored.size
                on_tensor(name, done, plan.bytes_written)
        return Merged(dict(journal.finished), journal.close())


def survey(
    plan: Plan,
    measure: Measure,
    devices: Sequence[str],
    on_tensor: OnTensor = lambda name, done, total: None,
) -> dict[str, Sequence[Any]]:
    """Measure every block of the floating tensors, writing nothing; return results by tensor, in order."""
    keep_freed_pages()
    found: dict[str, Sequence[Any]] = {}
    done, total = 0, sum(plan.spec[name].size for name in plan.settings.shapes)
    with one_thread_each(False), _Workers(plan, [], devices) as workers:
        for name in plan.settings.shapes:
            found |= workers.round(measure, [name])
            done += plan.spec[name].size
            on_tensor(name, done, total)
    return found


class _Workers:
    """Threads that compute blocks, and a few that see tensors through their rounds of measurement."""

    def __init__(self, plan: Plan, shards: Sequence[Shard], devices: Sequence[str]) -> None:
        self._plan = plan
        self._shards = {name: shard for shard in shards for name in shard.offsets}
        count = threads_for(plan.bytes_held) if list(devices) == [CPU] else THREADS_PER_GPU * len(devices)
        self._here = threading.local()
        self._held: dict[Piece, Block] = {}
        waiting: SimpleQueue[str] = SimpleQueue()
        for i in range(count):
            waiting.put(devices[i % len(devices)])
        self._blocks = ThreadPoolExecutor(count, initializer=self._begin, initargs=(waiting,))
        self._tensors = ThreadPoolExecutor(count + 1)  # one more, so that blocks wait for threads

    def __enter__(self) -> "_Workers":
        return self

    def __exit__(self, *exception: object) -> None:
        self._tensors.shutdown(wait=False, cancel_futures=True)
        self._blocks.shutdown(wait=True, cancel_futures=True)
        self._tensors.shutdown(wait=True)

    def start(self, pending: set[str]) -> dict[str, Future[Facts]]:
        """Begin with every pending tensor; return what will be known of each when it is written."""
        futures: dict[str, Future[Facts]] = {name: Future() for name in self._plan.spec if name in pending}
        measured_together = {name: group for group in self._plan.groups for name in group}
        started: set[str] = set()
        for name in futures:
            if name not in measured_together:
                self._tensors.submit(self._copy, name, futures[name])
            elif name not in started:
                started.update(measured_together[name])
                self._tensors.submit(self._merge, measured_together[name], futures)
        return futures

    def _begin(self, devices: "SimpleQueue[str]") -> None:
        self._here.device = devices.get()

    def _merge(self, names: Sequence[str], futures: dict[str, Future[Facts]]) -> None:
        """Take tensors through their rounds; write those that are pending."""
        try:
            finish = self._measured(names)
            parts = {
                name: [self._blocks.submit(self._finish, finish, piece) for piece in self._pieces(name)]
                for name in names
                if name in futures
            }
            for name, running in parts.items():
                facts, deviations = zip(*(part.result() for part in running), strict=True)
                futures[name].set_result({**worst(facts), **describe(join(deviations))})
        except BaseException as error:
            for name in names:
                if name in futures and not futures[name].done():
                    futures[name].set_exception(error)

    def _pieces(self, name: str) -> list[Piece]:
        return cut(name, self._plan.spec[name].shape, self._plan.method.whole)

    def round(self, measure: Measure, names: Sequence[str], keep: bool = False) -> dict[str, Sequence[Any]]:
        """Measure every block of some tensors; with `keep`, hold the blocks for what follows."""
        running = {
            name: [self._blocks.submit(self._compute, measure, piece, keep) for piece in self._pieces(name)]
            for name in names
        }
        return {name: [part.result() for part in parts] for name, parts in running.items()}

    def _measured(self, names: Sequence[str]) -> Finish:
        own = {name: self._plan.spec[name].shape for name in names}
        program = self._plan.method.program(replace(self._plan.settings, shapes=own))
        try:
            measure = next(program)
            while True:
                measure = program.send(self.round(measure, names, keep=self._is_small(names)))
        except StopIteration as stop:
            finish: Finish = stop.value
            return finish

    def _is_small(self, names: Sequence[str]) -> bool:
        elements = sum(math.prod(self._plan.spec[name].shape) for name in names)
        return elements * len(self._plan.sources) * np.dtype(self._dtype(names[0])).itemsize <= HELD

    def _compute(self, function: Callable[[Block], Any], piece: Piece, keep: bool = False) -> Any:
        """Call a function of a block where this thread computes; on the CPU when a GPU's memory is full."""
        device = self._here.device
        block = self._held.pop(piece, None) or self._read(piece)
        if keep:
            self._held[piece] = block
        try:
            with np.errstate(over="ignore", invalid="ignore"):  # what overflows is found when it is written
                return function(block) if device == CPU else _on_gpu(function, block, device)
        except LorelineError as error:
            if isinstance(error, NotFinite):
                raise
            raise type(error)(f"tensor {piece.tensor}: {error}") from None

    def _dtype(self, name: str) -> type[np.floating[Any]]:
        return np.float64 if self._plan.method.whole else compute_dtype(self._plan.spec[name].dtype)

    def _read(self, piece: Piece) -> Block:
        dtype = self._dtype(piece.tensor)
        count = piece.rows * piece.columns
        arrays = [
            source.read(piece.tensor, piece.start, count, dtype).reshape(piece.rows, piece.columns)
            for source in self._plan.sources
        ]
        base = arrays.pop() if self._plan.base else None
        return Block(piece.tensor, piece.matrix, piece.start, arrays, base)

    def _finish(self, finish: Finish, piece: Piece) -> tuple[Facts, Deviation]:
        def merge(block: Block) -> tuple[Numbers, Facts, Deviation]:
            merged, facts = finish(block)
            return to_numpy(merged).reshape(-1), facts, deviation(block)

        merged, facts, found = self._compute(merge, piece)
        dtype = self._plan.spec[piece.tensor].dtype
        numbers = encode(merged, dtype)
        if not all_finite(numbers, dtype):
            raise BadInput(
                f"tensor {piece.tensor}: the merge overflows {dtype}; choose a smaller merge.lam, "
                "or a wider merge.dtype"
            )
        write_numbers(self._shards[piece.tensor], piece.tensor, piece.start * numbers.itemsize, numbers)
        return facts, found

    def _copy(self, name: str, future: Future[Facts]) -> None:
        """Write a tensor of integers, which has to be the same everywhere, or an empty one."""
        try:
            count = math.prod(self._plan.spec[name].shape)
            *others, newest = (source.stored(name, 0, count) for source in self._plan.inputs)
            for other, source in zip(others, self._plan.inputs, strict=False):
                if not np.array_equal(other, newest):
                    raise BadInput(
                        f"{source.label}: tensor {name} ({newest.dtype}) differs from "
                        f"{self._plan.inputs[-1].label}; only floating-point tensors can be merged"
                    )
            write_numbers(self._shards[name], name, 0, newest)
            future.set_result({})
        except BaseException as error:
            future.set_exception(error)


def _on_gpu(function: Callable[[Block], Any], block: Block, device: str) -> Any:
    import torch

    try:
        return function(block.to(device))
    except torch.OutOfMemoryError:
        warnings.warn(f"{device}: out of memory at tensor {block.tensor}; computed on the CPU", stacklevel=2)
        return function(block)
