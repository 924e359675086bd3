"""Choosing the solver for a matrix, and the next one where it fails (docs/mathematics.md, fact 6)."""

from collections.abc import Callable
from functools import partial

import torch

from tasks.merging.lore import dense, subspace, tall_matrices, two_checkpoints
from tasks.merging.lore.algebra import Tensor, energy
from tasks.merging.lore.certificate import certify
from tasks.merging.lore.penalty import Scale
from tasks.merging.lore.problem import NotConverged, Solution, Unproven

SMALL_COLUMNS = 128
"""Columns up to which full decompositions in float64 cost less than finding subspaces."""
LOOSE = 1e-5
"""The smallest tolerance that float32 can prove; below it everything is solved in float64."""
SINGLE_SHARE = 0.7
"""Share of the tolerance for solving in float32; the rest is left for its rounding in the proof."""


def solve(
    B: Tensor,
    scale: Scale,
    tolerance: float,
    passes: int | None = None,
    anchor: int | None = None,
    *,
    on_pass: Callable[[int], None] = lambda number: None,
) -> Solution:
    """Find the task vectors of one matrix from its N × m × n deviations θ_i − mean(θ), which sum to zero.

    `passes` runs that many passes of Algorithm 1 as printed. `anchor` is the position of the checkpoint that
    breaks the symmetry of two; three or more have one minimiser, whatever the start, and it is not read.
    `on_pass` is called at the start of each pass with its number; what it raises ends the solve.
    Raises NotConverged naming the gap.
    """
    # Every solver takes m ≥ n: Gram matrices are then n × n, the smaller side.
    if B.shape[1] < B.shape[2]:
        turned = scale._replace(shape=(scale.shape[1], scale.shape[0]))
        found = solve(B.mT, turned, tolerance, passes, anchor, on_pass=on_pass)
        return found._replace(deltas=[delta.transposed for delta in found.deltas])
    if len(B) == 2 and anchor is None:
        return two_checkpoints.symmetric(B)
    if energy(B) == 0.0:  # identical checkpoints: nothing to decompose
        return two_checkpoints.no_task_vectors(B, "zero")
    if len(B) == 2 and anchor is not None:
        return two_checkpoints.anchored(B, anchor, scale, tolerance)
    if passes is not None:
        return dense.solve_densely(_precise(B), scale, tolerance, passes, on_pass)
    solver = partial(_solve, on_pass=on_pass)
    return _by_shrinking(B, scale, tolerance, solver) or solver(B, scale, tolerance)


def _by_shrinking(B: Tensor, scale: Scale, tolerance: float, solver: tall_matrices.Solver) -> Solution | None:
    """Solve tall matrices by their triangular factor; None for others, and where that proves nothing."""
    return tall_matrices.solve_tall(B, scale, tolerance, solver) if tall_matrices.is_tall(B) else None


def _solve(B: Tensor, scale: Scale, tolerance: float, on_pass: Callable[[int], None]) -> Solution:
    """Solve by subspaces, else by decompositions; in float64 where float32 proves nothing."""
    single = B.dtype == torch.float32
    if single and (B.shape[2] <= SMALL_COLUMNS or tolerance < LOOSE):
        return _solve(_precise(B), scale, tolerance, on_pass)
    try:
        found = (
            subspace.solve_by_subspaces(B, scale, tolerance, on_pass) if B.shape[2] > SMALL_COLUMNS else None
        )
    except Unproven:
        return (
            _solve(_precise(B), scale, tolerance, on_pass)
            if single
            else dense.solve_densely(B, scale, tolerance, on_pass=on_pass)
        )
    return found or (
        _in_single(B, scale, tolerance, on_pass)
        if single
        else dense.solve_densely(B, scale, tolerance, on_pass=on_pass)
    )


def _in_single(B: Tensor, scale: Scale, tolerance: float, on_pass: Callable[[int], None]) -> Solution:
    """Solve by decompositions in float32 and prove the result; in float64 where either fails."""
    try:
        found = dense.solve_densely(B, scale, SINGLE_SHARE * tolerance, on_pass=on_pass)
    except (NotConverged, Unproven):
        return dense.solve_densely(_precise(B), scale, tolerance, on_pass=on_pass)
    # dense's own gap trusts float32 decompositions; the certificate does not.
    gap = certify(B, energy(B), found.deltas, found.penalty, found.thresholds, tolerance)
    return (
        dense.solve_densely(_precise(B), scale, tolerance, on_pass=on_pass)
        if gap is None
        else found._replace(gap=gap)
    )


def _precise(B: Tensor) -> Tensor:
    """Return the deviations in float64, summing to zero in float64 too."""
    if B.dtype == torch.float64:
        return B
    doubled = B.double()  # float32 deviations sum to zero only within float32 rounding: centre again
    return doubled.sub_(doubled.mean(0))
