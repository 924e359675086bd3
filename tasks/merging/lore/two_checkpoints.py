"""Two checkpoints: no task vectors, or with an anchor a single thresholding (docs/mathematics.md, fact 3)."""

import math

import torch

from tasks.merging.lore.algebra import Factors, Tensor, energy, precise
from tasks.merging.lore.certificate import bounded, distance_from
from tasks.merging.lore.penalty import Penalty, Scale, values
from tasks.merging.lore.problem import Solution
from tasks.merging.lore.shrink import shrink
from tasks.merging.lore.spectrum import look
from tasks.merging.lore.triplets import triplets_above

SHARPNESS = 1e-4
"""Residual of the singular triplets, in units of ‖θ − θ_anchor‖_F."""
ALLOWED = 1e-3
"""What the proven distance from the exact task vector may be, in the same units."""


def symmetric(B: Tensor) -> Solution:
    """Solve without an anchor: δ_1 = −δ_2 for every μ, so S = 0 and the merge is the mean.

    The δ_i themselves are not computed, and returned as zero.
    """
    return no_task_vectors(B, "symmetric")


def anchored(B: Tensor, anchor: int, scale: Scale) -> Solution:
    """Solve with δ = 0 at the anchor; the other task vector is SVT(θ − θ_anchor; 2μ).

    `B` is 2 × m × n, m ≥ n. The noise edge is that of the difference θ − θ_anchor.
    """
    D = B[1 - anchor] - B[anchor]
    # The relative units are measured on the difference, twice as large as the B_i: they double by themselves.
    doubled = scale if scale.unit != "absolute" else scale._replace(mu=2 * scale.mu)
    one = _by_leading_triplets(D, doubled) or _by_decomposition(D, doubled)
    (still,) = no_task_vectors(D[None], "").deltas
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
    return Solution([zero] * N, [[]] * N, Penalty("nuclear", 0.0), [0.0] * N, 0.0, 0, 0.0, 0.0, solver)


def _by_leading_triplets(D: Tensor, scale: Scale) -> Solution | None:
    """Threshold what is found above μ, if nothing else is proven to be there; None otherwise."""
    if scale.kind == "squared":
        return None
    size = energy(D) ** 0.5
    start = look(D[None], scale)
    mu = start.penalty.mu
    known = start.leading[0].V if start.leading else D.new_zeros(D.shape[1], 0)
    found = triplets_above(D, mu, known, SHARPNESS * size)
    distance = distance_from(D, found)
    # Rounding decides on singular values that equal μ: what they leave is as small as the distance.
    if distance > ALLOWED * size or not bounded(D, found, mu + distance):
        return None
    delta = found.thresholded(mu)
    excess = 2 * distance
    objective = energy(D) / 2 - float(delta.sigma.double().square().sum()) / 2
    gap = (excess * float(delta.sigma.double().sum()) + excess**2 * D.shape[1] / 2) / objective
    spectra = [values(found.sigma).tolist()]
    return Solution([delta], spectra, start.penalty, [mu], start.edge, 1, gap, excess / 2, "anchored")


def _by_decomposition(D: Tensor, scale: Scale) -> Solution:
    D = precise(torch.stack([D, -D]))[0]
    start = look(D[None], scale)
    delta, sigma, t = shrink(D, start.penalty, 1e-8)
    # gap 0: with z fixed, the proximal map of an exact decomposition is the minimiser
    rounding = math.sqrt(energy(D)) * 1e-12
    return Solution([delta], [list(sigma)], start.penalty, [t], start.edge, 1, 0.0, rounding, "anchored")
