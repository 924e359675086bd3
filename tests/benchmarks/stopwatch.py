"""Measure functions of this process side by side, both with the same two threads."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from threadpoolctl import threadpool_limits

from tests.benchmarks.measure import say

THREADS = 2


class Duel(NamedTuple):
    """Seconds, and the median of the ratios of the turns."""

    ours: float
    theirs: float
    ratio: float
    """Theirs to ours: how many times as fast ours is."""


@contextmanager
def two_threads() -> Iterator[None]:
    """Let torch compute on two threads, as many as the goals were set for.

    scipy's BLAS has a pool of its own, and two pools that spin on two cores take each other's time.
    """
    before = torch.get_num_threads()
    with threadpool_limits(1, user_api="blas"):
        torch.set_num_threads(THREADS)
        yield
    torch.set_num_threads(before)


def duel(
    ours: Callable[[], object], theirs: Callable[[], object], *, turns: int = 1, repeats: int = 3
) -> Duel:
    """Take turns: ours so often, of which the median counts, then theirs once; ours once before, to be warm."""
    ours()
    pairs = []
    for turn in range(turns):
        own = statistics.median(seconds(ours) for _ in range(repeats))
        pairs.append((own, seconds(theirs)))
        say(f"{turn + 1}/{turns}: {own:.4f} s against {pairs[-1][1]:.3f} s")
    own, other = (statistics.median(column) for column in zip(*pairs, strict=True))
    return Duel(own, other, statistics.median(other / own for own, other in pairs))


def seconds(function: Callable[[], object]) -> float:
    """Run it once."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start
