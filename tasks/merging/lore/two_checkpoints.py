"""Two checkpoints: no task vectors, or with an anchor a single thresholding (docs/mathematics.md, fact 3)."""

from tasks.merging.lore.algebra import Factors, Tensor, energy
from tasks.merging.lore.certificate import certify
from tasks.merging.lore.krylov import leading_triplets
from tasks.merging.lore.penalty import Deviations, Penalty, Scale, values
from tasks.merging.lore.problem import Solution
from tasks.merging.lore.ritz import ritz, threshold
from tasks.merging.lore.shrink import shrink, singular

POLISHES = 6
"""Power iterations on the Krylov subspaces before a full decomposition takes over."""


def symmetric(B: Tensor) -> Solution:
    """Solve without an anchor: δ_1 = −δ_2 for every μ, so S = 0 and the merge is the mean.

    The δ_i themselves are not computed, and returned as zero.
    """
    return no_task_vectors(B, "symmetric")


def anchored(B: Tensor, anchor: int, scale: Scale, tolerance: float) -> Solution:
    """Solve with δ = 0 at the anchor; the other task vector is SVT(θ − θ_anchor; 2μ).

    `B` is 2 × m × n, m ≥ n. The noise edge is that of the difference θ − θ_anchor.
    """
    D = (B[1 - anchor] - B[anchor])[None]
    # The relative units are measured on the difference, twice as large as the B_i: they double by themselves.
    doubled = scale if scale.unit != "absolute" else scale._replace(mu=2 * scale.mu)
    one = _by_subspace(D, doubled, tolerance) or _by_decomposition(D.double(), doubled, tolerance)
    (still,) = no_task_vectors(D, "").deltas
    moved = {1 - anchor: one.deltas[0], anchor: still}
    return one._replace(
        deltas=[moved[0], moved[1]],
        spectra=[[], one.spectra[0]] if anchor == 0 else [one.spectra[0], []],
        thresholds=one.thresholds * 2,
    )


def no_task_vectors(B: Tensor, solver: str) -> Solution:
    """Return task vectors that are zero, for N × m × n deviations."""
    N, m, n = B.shape
    zero = Factors(B.new_zeros(m, 0), B.new_zeros(0), B.new_zeros(n, 0))
    return Solution([zero] * N, [[]] * N, Penalty("nuclear", 0.0), [0.0] * N, 0.0, 0, 0.0, solver)


def _by_subspace(D: Tensor, scale: Scale, tolerance: float) -> Solution | None:
    squares = energy(D)
    start = leading_triplets(D, squares, scale, tolerance)
    if start is None:
        return None
    found, penalty = start.triplets, start.penalty
    # z is fixed, so one thresholding is the solution; iterations only sharpen the singular vectors.
    for _ in range(POLISHES):
        deltas, _, thresholds = threshold(found, penalty)
        gap = certify(D, squares, deltas, penalty, thresholds, tolerance, free_base=False)
        if gap is not None:
            spectra = [values(found.sigma[0]).tolist()]
            return Solution(deltas, spectra, penalty, thresholds, start.edge, 1, gap, "anchored")
        found = ritz(D, found.V)
    return None


def _by_decomposition(D: Tensor, scale: Scale, tolerance: float) -> Solution:
    found = Deviations([values(singular(D[0]))], energy(D))
    penalty, edge = scale.penalty(found)
    delta, sigma, t = shrink(D[0], penalty, tolerance)
    # gap 0: with z fixed, the proximal map of an exact decomposition is the minimiser
    return Solution([delta], [list(sigma)], penalty, [t], edge, 1, 0.0, "anchored")
