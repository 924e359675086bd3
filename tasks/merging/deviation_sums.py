"""What norms, cosines and sign conflicts of task vectors follow from: sums that can be added up."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tasks.base.measures import DeviationSummary


class Deviation(NamedTuple):
    """Sums over some part of a tensor, from which norms, cosines and conflicts follow."""

    products: np.ndarray[Any, np.dtype[np.float64]]
    """⟨δ_i, δ_j⟩, N × N."""
    anchor: float
    """‖θ_0‖²."""
    conflicts: int
    """Elements that one task vector raises and another lowers."""
    elements: int


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


def describe(measured: Deviation, elements: int | None = None) -> DeviationSummary:
    """Return norms of task vectors and anchor, cosines of the pairs, and the share in sign conflict.

    What was measured may be a sample of so many `elements`: norms are scaled to all of them.
    """
    is_sample = elements is not None and elements != measured.elements
    scale = elements / measured.elements if elements and is_sample else 1.0
    return DeviationSummary(
        norms=tuple(np.sqrt(np.diag(measured.products) * scale).tolist()),
        anchor=(measured.anchor * scale) ** 0.5,
        cosines=tuple(cosines(measured)[np.triu_indices(len(measured.products), 1)].tolist()),
        conflict=measured.conflicts / measured.elements if measured.elements else 0.0,
        elements=measured.elements if elements is None else elements,
        sampled=measured.elements if is_sample else None,
    )


def recall(summary: DeviationSummary) -> Deviation:
    """Invert `describe`, so that tensors can be joined to layers and to the whole model."""
    norms = np.array(summary.norms)
    products = np.diag(norms**2)
    i, j = np.triu_indices(len(norms), 1)
    products[i, j] = products[j, i] = np.array(summary.cosines) * norms[i] * norms[j]
    conflicts = round(summary.conflict * summary.elements)
    return Deviation(products, summary.anchor**2, conflicts, summary.elements)
