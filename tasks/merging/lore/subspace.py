"""Solving with subspaces that track the active singular vectors from pass to pass.

Each pass multiplies every A_i = B_i − z by its subspace once from either side; z stays in factors,
and nothing is decomposed in full (docs/mathematics.md, facts 4 to 6).
"""

from collections.abc import Callable

import torch

from tasks.merging.lore.algebra import Tensor, energy
from tasks.merging.lore.certificate import certify
from tasks.merging.lore.duality_gap import DualityGap
from tasks.merging.lore.fista import Fista
from tasks.merging.lore.krylov import RANK_SHARE, enlarged, leading_triplets
from tasks.merging.lore.penalty import Penalty, Scale, values
from tasks.merging.lore.problem import Solution, Unproven
from tasks.merging.lore.ritz import Pass, ritz, threshold

SPARE = 8
"""Columns of a subspace beyond the active ones; doubled whenever a proof fails."""
SUBSPACE_PASSES = 300
"""Passes before a full decomposition takes over; 12 to 18 are usual."""
PROOF_ATTEMPTS = 6
"""Proofs that may fail, each widening the subspace, before a full decomposition takes over."""
MISSED_BLOCKS = 6
"""Krylov blocks added after a failed proof, to find triplets that the subspaces missed."""
PRODUCT_ROUNDING = 8
"""Rounding of products and factors, in units of ε·σ_1; it has to be small beside the threshold."""
CAUTION = 0.8
"""Share of the tolerance that the estimated gap must reach before a proof is tried.

The estimate sees the subspaces only; the proof sees what lies outside them too, and its gap is larger.
"""


def solve_by_subspaces(
    B: Tensor, scale: Scale, tolerance: float, on_pass: Callable[[int], None] = lambda number: None
) -> Solution | None:
    """Solve for N × m × n deviations; None where too much is active for subspaces to pay.

    Raises Unproven where more precision, or a decomposition, is needed for a proof.
    """
    total_energy = energy(B)
    start = leading_triplets(B, total_energy, scale, tolerance)
    if start is None:
        return None
    penalty, found = start.penalty, start.triplets
    fista = Fista(len(B), total_energy)
    largest, attempts, spare = float(found.sigma.max()), 0, SPARE
    # Rounding of the products alone would exceed the tolerance: no proof in this precision.
    if PRODUCT_ROUNDING * torch.finfo(B.dtype).eps * largest > tolerance * threshold(found, penalty).lowest:
        raise Unproven
    for passes in range(1, SUBSPACE_PASSES + 1):
        on_pass(passes)
        current = penalty.coming_down(largest, passes)
        latest = threshold(found, current)
        duality = fista.take(latest.deltas, latest.thresholds, current)
        active = max(delta.rank for delta in latest.deltas)
        # The count grows as μ comes down: what looked small at the start may be too much now.
        if active > min(B.shape[1:]) // RANK_SHARE:
            return None
        if current == penalty and _worth_proving(duality, fista, tolerance):
            gap = certify(B, total_energy, latest.deltas, penalty, latest.thresholds, tolerance)
            if gap is not None:
                return _solution(latest, penalty, start.edge, passes, gap)
            # The estimate was good and the proof failed: an active direction lies outside the subspaces.
            attempts, spare = attempts + 1, 2 * spare
            if attempts == PROOF_ATTEMPTS:
                raise Unproven
            found = enlarged(B, found, fista.next_z(), MISSED_BLOCKS)
        else:
            found = ritz(B, resized(found.V, active + spare, start.triplets.V), fista.next_z())
    raise Unproven


def resized(V: Tensor, width: int, others: Tensor) -> Tensor:
    """Return orthonormal bases of this width: V cut, or filled up with the vectors in `others`."""
    k = V.shape[-1]
    if width <= k:
        return V[..., :width]
    basis: Tensor = torch.linalg.qr(torch.cat([V, others[..., k:width]], -1)).Q
    return basis


def _worth_proving(duality: DualityGap, fista: Fista, tolerance: float) -> bool:
    """Estimate whether a proof would succeed, because a failed one costs more than a pass."""
    excess = duality.allowance(CAUTION * tolerance)
    return excess > 0 and fista.remaining(excess) <= excess


def _solution(latest: Pass, penalty: Penalty, edge: float, passes: int, gap: float) -> Solution:
    spectra = [values(sigma).tolist() for sigma in latest.triplets.sigma]
    return Solution(latest.deltas, spectra, penalty, latest.thresholds, edge, passes, gap, "subspace")
