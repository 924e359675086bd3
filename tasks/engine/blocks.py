"""Threads that read blocks and compute on them: one for each core, or several for each GPU."""

import math
import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from queue import SimpleQueue
from types import TracebackType
from typing import Any

import numpy as np

from tasks.base.errors import LorelineError
from tasks.base.threads import compute_alone
from tasks.checkpoints.header import ITEM_SIZE
from tasks.checkpoints.weights import NotFinite, SafetensorsModel, WeightReader
from tasks.engine.cut import Piece, cut, split
from tasks.engine.devices import CPU, threads_for
from tasks.engine.earliest import EarliestFirst, Item
from tasks.engine.held import Held
from tasks.engine.leaving import leave
from tasks.engine.plan import Plan
from tasks.merging.arrays import Array, to_numpy
from tasks.merging.block import OF_ROWS, Block
from tasks.merging.deferred import Deferred, defer
from tasks.merging.llvm import can_compile
from tasks.merging.on_device import finish_stream, load_linear_algebra, take_a_stream, to_device
from tasks.merging.program import Measure

HELD_BYTES, HELD_DECODED = 2**27, 2**26
"""Bytes of blocks that stay in memory between a method's rounds, as they are stored, or with what numpy made
of them."""

COMPILED_FROM = 2**25
"""Elements of a model from which on compiled loops pay: below, LLVM takes as long to start as they save."""


class Blocks:
    """A thread pool that reads a plan's blocks and calls functions of them."""

    def __init__(self, plan: Plan, devices: Sequence[str]) -> None:
        self._plan = plan
        on_cpu = list(devices) == [CPU]
        self.threads = threads_for(devices, plan.bytes_held)
        self.compiled = (not on_cpu or _pays(plan)) and can_compile()
        # on a GPU numbers travel as they are stored, and are decoded there
        self._deferred = self.compiled and not (on_cpu and plan.method.whole)
        self._local = threading.local()
        self._held = Held(HELD_BYTES if self._deferred else HELD_DECODED)
        self._finite: set[Piece] = set()  # what is read again need not be looked through for NaN again
        self._places = {name: place for place, name in enumerate(plan.spec)}
        for device in devices:
            load_linear_algebra(device)
        # each thread takes one device when it starts and keeps it
        waiting: SimpleQueue[str] = SimpleQueue()
        for i in range(self.threads):
            waiting.put(devices[i % len(devices)])
        self._pool = ThreadPoolExecutor(self.threads, initializer=self._begin, initargs=(waiting,))
        self._work = EarliestFirst(self._pool, self.threads)

    def __enter__(self) -> "Blocks":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._work.cancel()
        leave(self._pool, error)

    def start(self, function: Callable[[Block], Any], name: str, keep: bool = False) -> Future[list[Any]]:
        """Submit a function for all blocks of a tensor; with `keep`, hold blocks for the next call."""
        pieces = cut(name, self._plan.spec[name].shape, self._plan.method.whole)
        return self._work.submit(self._places[name], partial(self._compute, function, keep), pieces)

    def compute(self, function: Callable[[Block], Any], name: str, read: Callable[[], Block]) -> Future[Any]:
        """Submit a function of a block of a tensor that `read` returns, whatever part of it that is."""
        return self._pool.submit(lambda: self._on_device(function, name, read()))

    def call(self, function: Callable[[], Any], name: str) -> Future[Any]:
        """Submit a function that works on a tensor and takes no block."""
        return self._pool.submit(_named, name, function)

    def submit(self, function: Callable[[Item], Any], name: str, items: Sequence[Item]) -> Future[list[Any]]:
        """Submit a function of each of some items, for a tensor none of whose blocks it needs."""
        return self._work.submit(self._places[name], partial(_named, name, function), items)

    def measure(self, measure: Measure, names: Sequence[str], keep: bool = False) -> dict[str, list[Any]]:
        """Measure every block of some tensors; return results by tensor, in order."""
        running = {name: self.start(measure, name, keep) for name in names}
        return {name: parts.result() for name, parts in running.items()}

    def base(self, piece: Piece) -> Array:
        """Read a piece of the base, rows × columns."""
        assert self._plan.base is not None
        return self._read_from(self._plan.base, piece)

    def _begin(self, devices: "SimpleQueue[str]") -> None:
        self._local.device = devices.get()
        if self._local.device != CPU:
            take_a_stream(self._local.device)
        if self._plan.method.whole:
            compute_alone()

    def _compute(self, function: Callable[[Block], Any], keep: bool, piece: Piece) -> Any:
        """Call a function of a block on this thread's device; on the CPU when a GPU's memory is full."""
        block = self._held.take(piece) or self._read(piece)
        self._finite.add(piece)
        if keep:
            self._held.keep(piece, block, self._size(piece))
        return self._on_device(function, piece.tensor, block)

    def _on_device(self, function: Callable[[Block], Any], tensor: str, block: Block) -> Any:
        device = self._local.device
        if device == CPU:
            return _named(tensor, function, block)
        return _named(tensor, self._on_gpu, function, block, device)

    def _on_gpu(self, function: Callable[[Block], Any], block: Block, device: str) -> Any:
        import torch

        whole = self._plan.method.whole
        try:
            found = function(to_device(block, device, whole))
            finish_stream(device)
            return found
        except torch.OutOfMemoryError:
            warnings.warn(
                f"{device}: out of memory at tensor {block.tensor}; computed on the CPU", stacklevel=2
            )
            if whole:
                block = replace(block, thetas=_side_by_side(block.thetas))
            return function(block)

    def _size(self, piece: Piece) -> int:
        """Return the bytes that a block takes."""
        widths = [
            ITEM_SIZE[source.tensors[piece.tensor].dtype]
            if self._deferred and isinstance(source, SafetensorsModel)
            else np.dtype(self._plan.dtype(piece.tensor)).itemsize
            for source in self._plan.sources
        ]
        return piece.rows * piece.columns * sum(widths)

    def _read(self, piece: Piece) -> Block:
        base = self._read_from(self._plan.base, piece) if self._plan.base else None
        if self._plan.method.whole and self._local.device == CPU:
            arrays = self._side_by_side(piece)
            base = None if base is None else to_numpy(base)
        else:
            arrays = [self._read_from(source, piece) for source in self._plan.inputs]
        block = Block(piece.tensor, piece.matrix, piece.start, arrays, base)
        match self._plan.method.measures:
            case "gradients":
                known = piece.tensor in self._plan.measured[0].tensors
                sources = self._plan.measured if known else ()
                return replace(block, importance=[self._read_from(source, piece) for source in sources])
            case "inputs":
                return self._with_grams(block)
            case "coefficients" | None:
                return block

    def _side_by_side(self, piece: Piece) -> Array:
        """Read a matrix of every checkpoint into one array, a few rows at a time, which caches hold."""
        shape = (len(self._plan.inputs), piece.rows, piece.columns)
        stack = np.empty(shape, self._plan.dtype(piece.tensor))
        for own, source in zip(stack, self._plan.inputs, strict=True):
            for part in split(piece):
                first = (part.start - piece.start) // max(piece.columns, 1)
                _put(self._read_from(source, part, piece in self._finite), own[first : first + part.rows])
        return stack

    def _with_grams(self, block: Block) -> Block:
        """Add what the layer of a matrix was fed, where it is a linear layer's."""
        [key] = {block.tensor, block.tensor + OF_ROWS} & self._plan.measured[0].tensors.keys() or {""}
        if not key:
            return block
        rows, columns = self._plan.measured[0].tensors[key].shape
        grams = [
            source.read(key, 0, rows * columns, np.float32).reshape(rows, columns)
            for source in self._plan.measured
        ]
        return replace(block, grams=grams, grams_of_rows=key != block.tensor)

    def _read_from(self, source: WeightReader, piece: Piece, finite: bool = False) -> Array:
        dtype, shape = self._plan.dtype(piece.tensor), (piece.rows, piece.columns)
        part = (piece.tensor, piece.start, piece.rows * piece.columns)
        if self.compiled and isinstance(source, SafetensorsModel):
            read = source.stored if finite or piece in self._finite else source.finite
            return defer(read(*part), source.tensors[piece.tensor].dtype, dtype, shape)
        return source.read(*part, dtype).reshape(shape)


def _side_by_side(thetas: Sequence[Array]) -> Array:
    """Return arrays as one, filled in place: np.stack would need the memory of the checkpoints twice."""
    stack = np.empty((len(thetas), *thetas[0].shape), thetas[0].dtype)
    for own, theta in zip(stack, thetas, strict=True):
        _put(theta, own)
    return stack


def _put(numbers: Array, out: Array) -> None:
    """Write an array, or an expression, to where it is to lie."""
    if isinstance(numbers, Deferred):
        numbers.write(out)
    else:
        out[...] = numbers


def _pays(plan: Plan) -> bool:
    """Tell whether compiled loops gain more than starting LLVM costs."""
    return sum(math.prod(shape) for shape in plan.shapes.values()) >= COMPILED_FROM


def _named(tensor: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function whose errors get the tensor's name."""
    try:
        # overflow is reported when the result is written
        with np.errstate(over="ignore", invalid="ignore"):
            return function(*arguments)
    except LorelineError as error:
        if isinstance(error, NotFinite):  # names its tensor already, and merge.on_nan needs its type
            raise
        raise error.within(f"tensor {tensor}") from None
