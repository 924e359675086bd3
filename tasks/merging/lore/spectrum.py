"""The spectra of the deviations: what μ is measured by, and where the first pass starts."""

import math
from collections.abc import Iterator, Sequence

import torch

from tasks.merging.lore.algebra import Factors, Tensor, computed_together, energy, gram_matrix, zero
from tasks.merging.lore.penalty import Deviations, Scale, values
from tasks.merging.lore.problem import Start
from tasks.merging.lore.triplets import DIRECT, SHARE, largest

SHARP = 0.2
"""Residual of the leading triplets, in units of the smallest singular value: the scale of μ needs no more."""
DEEPER, DEEP_SHARP = 2.2, 0.8
"""Triplets for each one that the scale of μ asks for, of a deep look, and their residual: that is of smaller
ones."""
FIRST = 16
"""Columns for each triplet that is looked for first, where nobody knows how many lead."""
FIRST_FEW = 64
"""Triplets that are looked for first where there is a most, and it is much more: usually these lead."""


def look(B: Tensor, scale: Scale, deeply: bool = False) -> Start:
    """Measure the spectra of N × m × n deviations, m ≥ n, as far as the scale of μ asks.

    `deeply`: further down, so that no triplet is missing that a proof at the mean needs.
    """
    total, n = energy(B), B.shape[2]
    found = [zero(b) for b in B]
    for count in _counts(scale.most, n):
        if deeply:
            count = math.ceil(DEEPER * count)
            found = _down_to_one_floor(B, count, found)
        else:
            found = [part for b, own in computed_together(B, found) for part in largest(b, count, SHARP, own)]
        spectra = Deviations([values(part.sigma) for part in found], total)
        penalty, edge = scale.penalty(spectra)
        followed = max(float(part.sigma[-1]) for part in found)
        if followed < min(edge, penalty.mu) or (scale.most is not None and count > scale.most):
            return Start(penalty, edge, spectra.largest, found)
    spectra = Deviations([values(singular(b)) for b in B], total)
    penalty, edge = scale.penalty(spectra)
    return Start(penalty, edge, spectra.largest, [])


def _down_to_one_floor(B: Tensor, count: int, known: Sequence[Factors]) -> list[Factors]:
    """Return the leading triplets of every B_i: so many of the largest, of others what exceeds all these.

    A trajectory's middle lies near the mean, and has few of them.
    """
    if B.is_cuda:
        return largest(B, count, DEEP_SHARP, known)
    found, floor, expected = list(known), 0.0, count
    for i in sorted(range(len(B)), key=lambda i: -float(torch.linalg.vector_norm(B[i]))):
        [found[i]] = largest(B[i], count, DEEP_SHARP, [found[i]], floor, expected)
        floor, expected = max(floor, float(found[i].sigma[-1])), found[i].rank
    return found


def _counts(most: int | None, n: int) -> Iterator[int]:
    """Yield how many triplets to look for, until a full decomposition is cheaper."""
    if most is not None:
        if most > 2 * FIRST_FEW:
            yield FIRST_FEW
        if most + 1 < n // SHARE:
            yield most + 1
    elif n > DIRECT:
        count = n // FIRST
        while count < n // SHARE:
            yield count
            count *= 2


def singular(A: Tensor) -> Tensor:
    """Return the singular values, descending, exact to √ε · σ_1."""
    # The root of the Gram matrix's eigenvalues: several times faster than a singular value decomposition.
    sigma: Tensor = torch.linalg.eigvalsh(gram_matrix(A)).flip(-1).clamp(min=0).sqrt()
    return sigma
