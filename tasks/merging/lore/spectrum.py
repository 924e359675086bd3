"""The spectra of the deviations: what μ is measured by, and where the first pass starts."""

import math
from collections.abc import Iterator, Sequence

import torch

from tasks.merging.lore.algebra import Factors, Tensor, each, energy, gram_matrix, zero
from tasks.merging.lore.krylov import Largest, in_krylov_space
from tasks.merging.lore.lapack import leading_eigenpairs
from tasks.merging.lore.penalty import Deviations, Scale, Values, noise_edge, values
from tasks.merging.lore.problem import Near, Start, is_coarse
from tasks.merging.lore.triplets import DIRECT, SHARE, ritz

SHARP, CLOSE = 0.7, 0.05
"""Residual of the leading triplets, in units of what is beyond; and of the one that decides μ, in its own."""
DEEPER, SHALLOW = 2.0, 0.8
"""Triplets for each one that the scale of μ asks for, of a deep look; and how far below the last one of the
largest matrix another look goes in the others."""
SLIM = 24
"""Rows for each column, from where on a Gram matrix costs less than a Krylov space: then it is small."""
FIRST = 16
"""Columns for each triplet that is looked for first, where nobody knows how many lead."""
FIRST_FEW = 64
"""Triplets that are looked for first where there is a most, and it is much more: usually these lead."""


def look(B: Tensor, scale: Scale, tolerance: float | Near = 0.0) -> Start:
    """Measure the spectra of N × m × n deviations, m ≥ n, as far as the scale of μ asks.

    For weights in few digits further down, to where a proof at the mean needs hardly any other triplet.
    """
    squares, n = [energy(b[None]) for b in B], B.shape[2]
    total = sum(squares)
    deeply = is_coarse(tolerance, total, len(B))

    def noise(sigma: Values, energy: float) -> float:
        # one matrix' noise may be far above that of all together, which decides
        together = Deviations([sigma, *[sigma[:0]] * (len(B) - 1)], total)
        return min(noise_edge(own, scale.shape) for own in (Deviations([sigma], energy), together))

    def close(sigma: Values, energy: float) -> float:
        if scale.most != len(sigma) - 1:
            return math.inf
        return CLOSE if scale.unit == "rank" or sigma[-1] > noise(sigma, energy) else math.inf

    counts = [math.ceil(DEEPER * count) if deeply else count for count in _counts(scale.most, n)]
    sought = [Largest(count, SHARP, close) for count in counts]
    if sought and scale.unit in ("auto", "noise_edge") and not deeply:
        # what is deeper in the noise than all spikes decides nothing
        sought.insert(0, sought[0]._replace(noise=noise))
    for own in (attempts := iter(sought)):
        found = _down_to_one_floor(B, squares, own, 1.0 if deeply else SHALLOW)
        spectra = Deviations([values(part.sigma) for part in found], total)
        penalty, edge = scale.penalty(spectra)
        followed = max(float(part.sigma[-1]) for part in found)
        known = max(part.rank for part in found)
        if followed < min(edge, penalty.mu) or (scale.most is not None and known > scale.most):
            return Start(penalty, edge, spectra.largest, total, found)
        if own.noise and known >= own.most:
            next(attempts)  # nothing stood out: it would find the same
    spectra = Deviations([values(singular(b)) for b in B], total)
    penalty, edge = scale.penalty(spectra)
    return Start(penalty, edge, spectra.largest, total, [])


def _down_to_one_floor(B: Tensor, squares: Sequence[float], sought: Largest, below: float) -> list[Factors]:
    """Return the leading triplets of every B_i: of the largest what is sought, else what exceeds a floor.

    A trajectory's middle lies near the mean, and has few of them. `below` is the floor, in units of the least
    of the largest, `squares` are ‖B_i‖².
    """
    if B.is_cuda:
        return largest(B, squares, sought)
    found = [zero(b) for b in B]
    for i in sorted(range(len(B)), key=lambda i: -squares[i]):
        [found[i]] = largest(B[i], squares[i : i + 1], sought)
        if sought.noise is None or found[i].rank >= sought.most:  # not only spikes among noise
            floor = max(sought.floor, below * float(found[i].sigma[-1]))
            sought = sought._replace(floor=floor, expected=found[i].rank)
    return found


def largest(A: Tensor, squares: Sequence[float], sought: Largest) -> list[Factors]:
    """Return the largest triplets of a matrix m × n, m ≥ n, or of each of several: all there are, at most.

    `squares` are ‖A‖².
    """
    m, n = A.shape[-2:]
    few, found = min(sought.most, n), None
    if n > DIRECT and m < SLIM * n and few < n // SHARE:
        found = in_krylov_space(A, squares, sought)
    if found is None:
        found = [ritz(own, leading_eigenpairs(gram_matrix(own), few).vectors) for own in each(A)]
    return [part.truncated(sought.wanted(values(part.sigma))) for part in found]


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
