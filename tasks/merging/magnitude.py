"""Selecting the elements of largest magnitude exactly, block by block, without holding or sorting a tensor.

An element comes before another when its magnitude is larger, or equal and its index lower. Magnitudes are
compared as float32, whose bit patterns lie in the same order. Two measurements find the rank-th largest: the
first counts the upper halves of the bit patterns, the second the lower halves under the upper half found.
"""

from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from tasks.merging.arrays import Array, of_numpy
from tasks.merging.block import Block
from tasks.merging.program import Measure, Results
from tasks.merging.tallies import Tally, bits, tally

UPPER, LOWER = 2**15, 2**16
"""How many values the halves of a magnitude's 31 bits can have."""

TaskVectors: TypeAlias = Callable[[Block], Sequence[Array]]
Leaders: TypeAlias = Callable[[Block, int, Array], Sequence[Array]]
"""Block, position of the checkpoint, its δ → one mask for each rank."""


class Group(NamedTuple):
    """Tensors whose elements are ranked together, in this order."""

    tensors: Sequence[str]
    ranks: Sequence[Sequence[int]]
    """For each δ_i how many elements come first; every rank is a selection of its own."""


class Place(NamedTuple):
    """The rank-th largest of some integers."""

    value: int
    rank: int
    """Its rank among those of the same value; rank 0 is above all."""


class Cut(NamedTuple):
    """What is selected of one block: bit patterns above `above`, and the first `quota` that equal it."""

    above: int
    quota: int


def leading(groups: Sequence[Group], deltas: TaskVectors) -> Generator[Measure, Results, Leaders]:
    """Find the leading elements of each task vector, in two measurements."""
    coarse = yield lambda block: [tally(bits(delta) >> 16, UPPER) for delta in deltas(block)]
    places: dict[str, list[list[Place]]] = {}
    for group in groups:
        parts = [part for tensor in group.tensors for part in coarse[tensor]]
        found = [[_locate([part[i] for part in parts], rank, UPPER) for rank in ranks]
                 for i, ranks in enumerate(group.ranks)]  # fmt: skip
        places.update(dict.fromkeys(group.tensors, found))

    fine = yield lambda block: (block.start, [
        _under(delta, places[block.tensor][i])
        for i, delta in enumerate(deltas(block))
    ])  # fmt: skip
    cuts: dict[tuple[str, int, int], list[Cut]] = {}
    shared: set[tuple[str, int]] = set()
    for group in groups:
        blocks = [(tensor, *part) for tensor in group.tensors for part in fine[tensor]]
        for i in range(len(group.ranks)):
            by_rank = [
                _cut([part[i][j] for _, _, part in blocks], place)
                for j, place in enumerate(places[group.tensors[0]][i])
            ]
            for (tensor, start, _), *own in zip(blocks, *by_rank, strict=True):
                cuts[tensor, start, i] = own
                if any(cut.quota for cut in own):
                    shared.add((tensor, start))

    def leaders(block: Block, i: int, delta: Array) -> list[Array]:
        patterns = bits(delta)
        if (block.tensor, block.start) in shared and of_numpy(patterns):
            # numpy selects in all task vectors or in none: a loop for every mixture would have to be compiled
            patterns = np.asarray(patterns)
        return [_mask(patterns, cut) for cut in cuts[block.tensor, block.start, i]]

    return leaders


def _locate(tallies: Sequence[Tally], rank: int, size: int) -> Place:
    """Find the rank-th largest of the integers counted, all below `size`."""
    counts = np.zeros(size, np.int64)
    for values, times in tallies:
        counts[values] += times
    down_to = np.cumsum(counts[::-1])
    steps = int(np.searchsorted(down_to, rank))
    larger = int(down_to[steps - 1]) if steps else 0
    return Place(size - 1 - steps, rank - larger)


def _under(delta: Array, places: Sequence[Place]) -> list[Tally]:
    """Count the lower halves of the bit patterns that have the upper half of each place."""
    patterns = bits(delta)
    upper = patterns >> 16
    return [tally(patterns & LOWER - 1, LOWER, where=upper == place.value) for place in places]


def _cut(tallies: Sequence[Tally], upper: Place) -> list[Cut]:
    """Share out among the blocks, in their order, the elements equal to the last one that is selected."""
    lower = _locate(tallies, upper.rank, LOWER)
    pattern, left = upper.value * LOWER + lower.value, lower.rank
    cuts = []
    for values, times in tallies:
        equal = int(times[values == lower.value].sum())
        taken = min(left, equal)
        left -= taken
        # Where all equal ones are taken, no counting is needed later: the threshold moves one down instead.
        cuts.append(Cut(pattern - 1, 0) if taken == equal else Cut(pattern, taken))
    return cuts


def _mask(patterns: Array, cut: Cut) -> Array:
    if not cut.quota:
        return patterns > cut.above
    if of_numpy(patterns):
        flat = np.asarray(patterns).reshape(-1)
        mask = flat > cut.above
        mask[np.flatnonzero(flat == cut.above)[: cut.quota]] = True
        return mask.reshape(patterns.shape)
    equal = patterns == cut.above
    return (patterns > cut.above) | (equal & (equal.reshape(-1).cumsum(0).reshape(equal.shape) <= cut.quota))
