"""The solver of LoRE's problem: which way is taken for which matrix, and which when that leads nowhere."""

import torch

from tasks.merging.lore import dense, subspace, tall_matrices, two_checkpoints
from tasks.merging.lore.algebra import Tensor, energy
from tasks.merging.lore.certificate import certify
from tasks.merging.lore.penalty import Scale
from tasks.merging.lore.problem import NotConverged, Solution, Unproven

SMALL_COLUMNS = 128
"""Columns up to which full decompositions in float64 cost less than looking for subspaces."""
LOOSE = 1e-5
"""Tolerance from which on float32 can prove anything."""
SINGLE_SHARE = 0.7
"""Of the tolerance, for solving in float32; the rest is for its rounding."""


def solve(
    B: Tensor, scale: Scale, tolerance: float, passes: int | None = None, anchor: int | None = None
) -> Solution:
    """Find the task vectors of one matrix from its N × m × n deviations θ_i − mean(θ), which sum to zero.

    `passes` runs Algorithm 1 as printed, just so often; `anchor` is the position of the checkpoint that
    breaks the symmetry of two (more have one minimiser, whatever the start). Raises NotConverged naming the
    gap.
    """
    if B.shape[1] < B.shape[2]:
        turned = scale._replace(shape=(scale.shape[1], scale.shape[0]))
        found = solve(B.mT, turned, tolerance, passes, anchor)
        return found._replace(deltas=[delta.transposed for delta in found.deltas])
    if len(B) == 2 and anchor is None:
        return two_checkpoints.symmetric(B)
    if energy(B) == 0.0:
        return two_checkpoints.no_task_vectors(B, "zero")
    if len(B) == 2 and anchor is not None:
        return two_checkpoints.anchored(B, anchor, scale, tolerance)
    if passes is not None:
        return dense.solve_densely(_precise(B), scale, tolerance, passes)
    return _by_shrinking(B, scale, tolerance) or _solve(B, scale, tolerance)


def _by_shrinking(B: Tensor, scale: Scale, tolerance: float) -> Solution | None:
    return tall_matrices.solve_tall(B, scale, tolerance, _solve) if tall_matrices.is_tall(B) else None


def _solve(B: Tensor, scale: Scale, tolerance: float) -> Solution:
    """Take subspaces where they lead, else decompositions; in float64 where float32 proves nothing."""
    single = B.dtype == torch.float32
    if single and (B.shape[2] <= SMALL_COLUMNS or tolerance < LOOSE):
        return _solve(_precise(B), scale, tolerance)
    try:
        found = subspace.solve_by_subspaces(B, scale, tolerance) if B.shape[2] > SMALL_COLUMNS else None
    except Unproven:
        return _solve(_precise(B), scale, tolerance) if single else dense.solve_densely(B, scale, tolerance)
    return found or (_in_single(B, scale, tolerance) if single else dense.solve_densely(B, scale, tolerance))


def _in_single(B: Tensor, scale: Scale, tolerance: float) -> Solution:
    """Solve by decompositions in float32, and prove it; in float64 where that fails."""
    try:
        found = dense.solve_densely(B, scale, SINGLE_SHARE * tolerance)
    except (NotConverged, Unproven):
        return dense.solve_densely(_precise(B), scale, tolerance)
    gap = certify(B, energy(B), found.deltas, found.penalty, found.thresholds, tolerance)
    return dense.solve_densely(_precise(B), scale, tolerance) if gap is None else found._replace(gap=gap)


def _precise(B: Tensor) -> Tensor:
    """Return deviations in float64; those in float32 sum to zero only as nearly as that can tell."""
    if B.dtype == torch.float64:
        return B
    doubled = B.double()
    return doubled.sub_(doubled.mean(0))
