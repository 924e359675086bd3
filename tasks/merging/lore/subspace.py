"""Solving with subspaces that follow the active singular vectors from pass to pass, without a decomposition.

Each pass multiplies every A_i = B_i − z by its subspace once from either side; z stays in factors
(docs/mathematics.md, facts 4 to 6).
"""

from typing import NamedTuple

import torch

from tasks.merging.lore.certificate import certify, energy
from tasks.merging.lore.duality_gap import DualityGap
from tasks.merging.lore.fista import Fista
from tasks.merging.lore.krylov import RANK_SHARE, Triplets, enlarged, leading_triplets, times, triplets
from tasks.merging.lore.penalty import Penalty
from tasks.merging.lore.problem import Factors, Solution, Tensor, Unproven
from tasks.merging.lore.scale import Scale, values

SPARE = 8
"""Columns of a subspace beyond the active ones; twice as many whenever a proof fails."""
SUBSPACE_PASSES = 300
PROOF_ATTEMPTS = 6
"""How often a proof may fail, and the subspace be widened, before a full decomposition takes over."""
MISSED_BLOCKS = 6
"""Krylov blocks to look for triplets that the subspaces missed."""
PRODUCT_ROUNDING = 8
"""What products and factors lose of σ_1, in units of its last place; beside μ it must not matter."""
CAUTION = 0.8
"""Share of the tolerance at which the proof is tried: it knows what the estimate leaves out."""


class Pass(NamedTuple):
    """The task vectors at one z."""

    deltas: list[Factors]
    triplets: Triplets
    thresholds: list[float]

    @property
    def lowest(self) -> float:
        """The smallest threshold."""
        return min(self.thresholds)


def solve_by_subspaces(B: Tensor, scale: Scale, tolerance: float) -> Solution | None:
    """Solve for N × m × n deviations; None where too much is active for subspaces to pay.

    Raises Unproven where more precision, or a decomposition, is needed for a proof.
    """
    total_energy = energy(B)
    start = leading_triplets(B, total_energy, scale, tolerance)
    if start is None:
        return None
    penalty, found = start.penalty, start.triplets
    descent = Fista(len(B), total_energy)
    largest, attempts, spare = float(found.sigma.max()), 0, SPARE
    if PRODUCT_ROUNDING * torch.finfo(B.dtype).eps * largest > tolerance * threshold(found, penalty).lowest:
        raise Unproven
    for passes in range(1, SUBSPACE_PASSES + 1):
        current = penalty.coming_down(largest, passes)
        here = threshold(found, current)
        accounts = descent.take(here.deltas, here.thresholds, current)
        active = max(delta.rank for delta in here.deltas)
        if active > min(B.shape[1:]) // RANK_SHARE:
            return None
        if current == penalty and _worth_proving(accounts, descent, tolerance):
            gap = certify(B, total_energy, here.deltas, penalty, here.thresholds, tolerance)
            if gap is not None:
                return _solution(here, penalty, start.edge, passes, gap)
            attempts, spare = attempts + 1, 2 * spare
            if attempts == PROOF_ATTEMPTS:
                raise Unproven
            found = enlarged(B, found, descent.next_z(), MISSED_BLOCKS)
        else:
            found = ritz(B, resized(found.V, active + spare, start.triplets.V), descent.next_z())
    raise Unproven


def ritz(B: Tensor, V: Tensor, z: Factors | None = None) -> Triplets:
    """Return Ritz triplets of B_i − z from subspaces V (N × n × k): one power pass from either side."""
    U = torch.linalg.qr(times(B, V, z)).Q
    return triplets(U, *torch.linalg.qr(times(B.mT, U, z.transposed if z is not None else None)))


def threshold(found: Triplets, penalty: Penalty) -> Pass:
    """Take the threshold off the singular values."""
    deltas, thresholds = [], []
    for U, sigma, V in zip(*found, strict=True):
        t = penalty.threshold(values(sigma))
        r = int((sigma > t).sum())
        deltas.append(Factors(U[:, :r], sigma[:r] - t, V[:, :r]))
        thresholds.append(t)
    return Pass(deltas, found, thresholds)


def resized(V: Tensor, width: int, others: Tensor) -> Tensor:
    """Return the first columns of orthonormal bases, or all of them and some of other vectors."""
    k = V.shape[-1]
    if width <= k:
        return V[..., :width]
    basis: Tensor = torch.linalg.qr(torch.cat([V, others[..., k:width]], -1)).Q
    return basis


def _worth_proving(accounts: DualityGap, descent: Fista, tolerance: float) -> bool:
    excess = accounts.allowance(CAUTION * tolerance)
    return excess > 0 and descent.remaining(excess) <= excess


def _solution(here: Pass, penalty: Penalty, edge: float, passes: int, gap: float) -> Solution:
    spectra = [values(sigma).tolist() for sigma in here.triplets.sigma]
    return Solution(here.deltas, spectra, penalty, here.thresholds, edge, passes, gap, "subspace")
