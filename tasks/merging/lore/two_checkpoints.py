"""Two checkpoints: no task vectors, or with an anchor a single thresholding (docs/mathematics.md, fact 3)."""

import math

import torch

from tasks.merging.lore.algebra import ROUNDING, Tensor, energy, precise, zero
from tasks.merging.lore.certificate import distances_from, limit, met
from tasks.merging.lore.newton import cut_below
from tasks.merging.lore.norm_bound import bounded
from tasks.merging.lore.penalty import Penalty, Scale, values
from tasks.merging.lore.problem import Near, Proof, Solution
from tasks.merging.lore.shrink import shrink
from tasks.merging.lore.spectrum import look
from tasks.merging.lore.steering import CUT
from tasks.merging.lore.triplets import Sought, triplets_above

SHARPNESS = 1e-4
"""Residual of the singular triplets, in units of ‖θ − θ_anchor‖_F."""


def symmetric(B: Tensor) -> Solution:
    """Solve without an anchor: δ_1 = −δ_2 for every μ, so S = 0 and the merge is the mean.

    The δ_i themselves are not computed, and returned as zero.
    """
    return no_task_vectors(B, "symmetric")


def anchored(B: Tensor, anchor: int, scale: Scale, tolerance: float | Near) -> Solution:
    """Solve with δ = 0 at the anchor; the other task vector is SVT(θ − θ_anchor; 2μ).

    `B` is 2 × m × n, m ≥ n. The noise edge is that of the difference θ − θ_anchor.
    """
    D = B[1 - anchor] - B[anchor]
    # The relative units are measured on the difference, twice as large as the B_i: they double by themselves.
    doubled = scale if scale.unit != "absolute" else scale._replace(mu=2 * scale.mu)
    one = _by_leading_triplets(D, doubled, tolerance) or _by_decomposition(D, doubled)
    (still,) = no_task_vectors(D[None], "").deltas
    moved = {1 - anchor: one.deltas[0], anchor: still}
    return one._replace(
        deltas=[moved[0], moved[1]],
        spectra=[[], one.spectra[0]] if anchor == 0 else [one.spectra[0], []],
        thresholds=one.thresholds * 2,
    )


def no_task_vectors(B: Tensor, solver: str) -> Solution:
    """Return task vectors that are zero, for N × m × n deviations."""
    N = len(B)
    return Solution([zero(B[0])] * N, [[]] * N, Penalty("nuclear", 0.0), [0.0] * N, 0.0, 0, 0.0, 0.0, solver)


def _by_leading_triplets(D: Tensor, scale: Scale, tolerance: float | Near) -> Solution | None:
    """Threshold what is found above μ, if that is proven to be near enough; None otherwise.

    D is no further than its distance from a matrix that has exactly these triplets, and of which nothing else
    exceeds μ: δ is that matrix's proximal map, no further from D's. What the objective, strongly convex, has
    for a subgradient at δ is the difference of the two matrices.
    """
    if scale.kind == "squared":
        return None
    total = energy(D)
    size = total**0.5
    start = look(D[None], scale)
    mu, cut = start.penalty.mu, cut_below(start, D.shape[1], CUT)
    known = start.leading[0] if start.leading else zero(D)
    sharp = min(SHARPNESS * size, tolerance.distance if isinstance(tolerance, Near) else math.inf)
    [near] = triplets_above(D, Sought(cut * mu, cut * mu, sharp, sharp, thorough=True), [known])
    found = near.above(cut * mu)
    [distance] = distances_from(D, found, [found.rank], size)
    if limit(cut, mu) + distance > mu or not bounded(D, found, limit(cut, mu)):
        return None
    delta = found.thresholded(mu)
    rounding = ROUNDING * torch.finfo(D.dtype).eps * total
    objective = total / 2 - float(delta.sigma.double().square().sum()) / 2 - rounding
    proof = Proof(distance**2 / 2 / objective if objective > 0 else math.inf, distance / 2, 1.0)
    if not met(proof, tolerance):
        return None
    spectra = [values(found.sigma).tolist()]
    return Solution([delta], spectra, start.penalty, [mu], start.edge, 1, proof.gap, proof.error, "anchored")


def _by_decomposition(D: Tensor, scale: Scale) -> Solution:
    D = precise(torch.stack([D, -D]))[0]
    start = look(D[None], scale)
    delta, sigma, t = shrink(D, start.penalty, 1e-8)
    # gap 0: with z fixed, the proximal map of an exact decomposition is the minimiser
    rounding = math.sqrt(energy(D)) * 1e-12
    return Solution([delta], [list(sigma)], start.penalty, [t], start.edge, 1, 0.0, rounding, "anchored")
