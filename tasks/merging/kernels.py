"""Element-wise expressions compiled by LLVM, each to one loop over its arrays.

A loop reads every array once, keeps what is between in registers, and writes one result; LLVM makes it use
the processor's vectors. A form of expression compiles in about 20 ms, once in a process; constants are
arguments.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from tasks.merging.llvm import compile_loop
from tasks.merging.loop_frames import APART, EACH_ELEMENT, IN_LANES, LANES, counting_frame, in_frame
from tasks.merging.loop_source import Step, adding_body, counting_body, expression_body

Buffer: TypeAlias = np.ndarray[Any, np.dtype[Any]]


class Loop(NamedTuple):
    """A body, and what it runs over."""

    steps: tuple[Step, ...]
    results: tuple[int, ...]
    """Places of the results in the body."""
    arrays: Sequence[Buffer]
    constants: Sequence[float]


def compute(loop: Loop, target: str, out: Buffer) -> Buffer:
    """Write a loop's result to `out`, as one of numpy's kinds or a dtype of safetensors; return it."""
    _call(_expression(loop.steps, loop.results, len(loop.arrays), target), out, out.size, loop)
    return out


def count(loop: Loop, size: int) -> Buffer:
    """Count how often a loop's result, integers below `size`, takes each value.

    Where the loop has a second result, a mask, only elements are counted where it holds.
    """
    # Neighbours are often equal, and one would wait for the other: they are counted in different tables.
    tables, apart = (4 if len(loop.results) == 1 else 2), size + 80  # not 4 KB apart, as in `accumulate`
    counts = np.zeros((tables, apart), np.uint32)
    counting = _counting(loop.steps, loop.results, len(loop.arrays), tables, apart)
    _call(counting, counts, loop.arrays[0].size, loop)
    total: Buffer = counts[0, :size] + counts[1, :size]
    for table in counts[2:, :size]:  # numpy's sum over an axis takes three times as long
        total += table
    return total


def accumulate(loop: Loop) -> Buffer:
    """Return the sum of each of a loop's results, in float64."""
    lanes = np.zeros((len(loop.results), APART))
    _call(_adding(loop.steps, loop.results, len(loop.arrays)), lanes, loop.arrays[0].size, loop)
    return total_of_lanes(lanes[:, :LANES])


def total_of_lanes(lanes: Buffer) -> Buffer:
    """Add up lanes, the last dimension."""
    total: Buffer = lanes.sum(axis=-1)
    return total


def _call(function: Callable[..., None], out: Buffer, size: int, loop: Loop) -> None:
    arrays = [_in_order(array) for array in loop.arrays]
    constants = np.array(loop.constants, np.float64) if loop.constants else NO_CONSTANTS
    function(out.ctypes.data, constants.ctypes.data, size, *[array.ctypes.data for array in arrays])


NO_CONSTANTS = np.empty(0)


def _in_order(array: Buffer) -> Buffer:
    """Return an array whose elements lie one after another, and where the processor wants them."""
    flags = array.flags
    return array if flags.c_contiguous and flags.aligned else np.require(array, requirements=["C", "A"])


@cache
def _expression(
    steps: tuple[Step, ...], results: tuple[int, ...], arrays: int, target: str
) -> Callable[..., None]:
    return compile_loop(in_frame(EACH_ELEMENT, expression_body(steps, results, target), arrays), arrays)


@cache
def _adding(steps: tuple[Step, ...], results: tuple[int, ...], arrays: int) -> Callable[..., None]:
    return compile_loop(in_frame(IN_LANES, adding_body(steps, results, APART), arrays), arrays)


@cache
def _counting(
    steps: tuple[Step, ...], results: tuple[int, ...], arrays: int, tables: int, apart: int
) -> Callable[..., None]:
    frame = counting_frame(len(results) > 1, tables, apart)
    return compile_loop(in_frame(frame, counting_body(steps, results), arrays), arrays)
