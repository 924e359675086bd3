"""How checkpoints deviate from the anchor and from each other: norms, cosines, sign conflicts."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tasks.base.measures import DeviationSummary
from tasks.merging.arrays import count_nonzero, dot, gram
from tasks.merging.block import Block


class Deviation(NamedTuple):
    """Sums over some part of a tensor, from which norms, cosines and conflicts follow."""

    products: np.ndarray[Any, np.dtype[np.float64]]
    """⟨δ_i, δ_j⟩, N × N."""
    anchor: float
    """‖θ_0‖²."""
    conflicts: int
    """Elements that one task vector raises and another lowers."""
    elements: int


def deviation(block: Block) -> Deviation:
    """Measure one block."""
    raised, lowered = block.deltas[0] > 0, block.deltas[0] < 0
    for delta in block.deltas[1:]:
        raised |= delta > 0
        lowered |= delta < 0
    raised &= lowered
    rows, columns = block.deltas[0].shape
    anchor = dot(block.anchor, block.anchor)
    return Deviation(gram(block.deltas), anchor, count_nonzero(raised), rows * columns)


def join(parts: Sequence[Deviation]) -> Deviation:
    """Add up parts, in their order: the order decides the last bits of a sum."""
    return Deviation(
        sum(part.products for part in parts),  # type: ignore[arg-type]
        sum(part.anchor for part in parts),
        sum(part.conflicts for part in parts),
        sum(part.elements for part in parts),
    )


def cosines(whole: Deviation) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the cosines of the task vectors, N × N; 0 where one is zero."""
    norms = np.sqrt(np.diag(whole.products))
    lengths = np.outer(norms, norms)
    found: np.ndarray[Any, np.dtype[np.float64]] = np.zeros_like(lengths)
    np.divide(whole.products, lengths, out=found, where=lengths > 0)
    return found


def describe(whole: Deviation) -> DeviationSummary:
    """Return norms of task vectors and anchor, cosines of the pairs, and the share in sign conflict."""
    return DeviationSummary(
        norms=tuple(np.sqrt(np.diag(whole.products)).tolist()),
        anchor=whole.anchor**0.5,
        cosines=tuple(cosines(whole)[np.triu_indices(len(whole.products), 1)].tolist()),
        conflict=whole.conflicts / whole.elements if whole.elements else 0.0,
        elements=whole.elements,
    )


def recall(summary: DeviationSummary) -> Deviation:
    """Invert `describe`, so that tensors can be joined to layers and to the whole model."""
    norms = np.array(summary.norms)
    products = np.diag(norms**2)
    i, j = np.triu_indices(len(norms), 1)
    products[i, j] = products[j, i] = np.array(summary.cosines) * norms[i] * norms[j]
    conflicts = round(summary.conflict * summary.elements)
    return Deviation(products, summary.anchor**2, conflicts, summary.elements)
