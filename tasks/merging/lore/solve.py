"""Choosing the solver for a matrix, and the next one where it fails (docs/mathematics.md, fact 6)."""

from collections.abc import Callable

import torch

from tasks.merging.lore import dense, tall_matrices, two_checkpoints
from tasks.merging.lore.algebra import Tensor, energy, precise, single
from tasks.merging.lore.beginning import GRAM_ROUNDING, begin, proven_at_once
from tasks.merging.lore.certificate import met
from tasks.merging.lore.converge import follow, proof_of
from tasks.merging.lore.penalty import Scale
from tasks.merging.lore.problem import GAP_INSTEAD, Converged, Near, Solution, Unproven, solution_of

SMALL_COLUMNS = 64
"""Columns up to which float64 costs nothing."""
LOOSE = 1e-5
"""The smallest relative gap that float32 can prove; below it everything is solved in float64."""


def solve(
    B: Tensor,
    scale: Scale,
    tolerance: float | Near,
    passes: int | None = None,
    anchor: int | None = None,
    on_pass: Callable[[int], None] = lambda number: None,
) -> Solution:
    """Find the task vectors of one matrix from its N × m × n deviations θ_i − mean(θ), which sum to zero.

    `tolerance` is a relative duality gap, or a distance from the exact θ_0. `passes` runs that many passes of
    Algorithm 1 as printed. `anchor` is the position of the checkpoint that breaks the symmetry of two; three
    or more have one minimiser, whatever the start, and it is not read. `on_pass` is called before each pass
    with its number, and may raise. Raises NotConverged naming the gap.
    """
    # Every solver takes m ≥ n: Gram matrices are then n × n, the smaller side.
    if B.shape[1] < B.shape[2]:
        turned = scale._replace(shape=(scale.shape[1], scale.shape[0]))
        found = solve(B.mT.contiguous(), turned, tolerance, passes, anchor, on_pass)
        return found._replace(deltas=[delta.transposed for delta in found.deltas])
    if len(B) == 2 and anchor is None:
        return two_checkpoints.symmetric(B)
    if not B[0, 0].any() and energy(B) == 0.0:  # identical checkpoints: nothing to decompose
        return two_checkpoints.no_task_vectors(B, "zero")
    if len(B) == 2 and anchor is not None:
        return two_checkpoints.anchored(B, anchor, scale, tolerance)
    gap = GAP_INSTEAD if isinstance(tolerance, Near) else tolerance
    if passes is not None or scale.kind == "squared":
        return dense.solve_densely(precise(B), scale, gap, on_pass, passes)
    try:
        return _by_newton(B, scale, tolerance, on_pass)
    except Unproven:
        return dense.solve_densely(precise(B), scale, gap, on_pass)


def _by_newton(B: Tensor, scale: Scale, tolerance: float | Near, on_pass: Callable[[int], None]) -> Solution:
    """Solve for a nuclear norm; raises Unproven."""
    if tall_matrices.is_tall(B):
        found = proven_at_once(B, scale, tolerance, on_pass) or _by_triangle(B, scale, tolerance, on_pass)
        if found is not None:
            return _solution(found, "tall")
    return _solution(_in_either_precision(B, scale, tolerance, on_pass), "newton")


def _by_triangle(
    B: Tensor, scale: Scale, tolerance: float | Near, on_pass: Callable[[int], None]
) -> Converged | None:
    """Solve for the triangular factors of tall matrices; None where rounding forbids it.

    What comes out is proven like any other iterate, on the matrices themselves.
    """
    for dtype in dict.fromkeys((B.dtype, torch.float64)):
        B = B if dtype == B.dtype else precise(B)
        small = tall_matrices.triangular(B)
        if small is None:
            continue
        found = _in_either_precision(small, scale, tolerance, on_pass)
        if torch.finfo(dtype).eps * found.start.largest**2 > GRAM_ROUNDING * found.here.mu**2:
            continue
        here = tall_matrices.lifted(B, found.here)
        proof = proof_of(B, here, tolerance)
        if proof is not None and met(proof, tolerance):
            return Converged(here, found.start, proof)
    return None


def _in_either_precision(
    B: Tensor, scale: Scale, tolerance: float | Near, on_pass: Callable[[int], None]
) -> Converged:
    """Solve in float32 where that can prove it, else in float64."""
    gap = GAP_INSTEAD if isinstance(tolerance, Near) else tolerance
    if B.shape[2] > SMALL_COLUMNS and gap >= LOOSE:
        try:
            return converged(single(B), scale, tolerance, on_pass)
        except Unproven:
            pass
    return converged(precise(B), scale, tolerance, on_pass)


def converged(B: Tensor, scale: Scale, tolerance: float | Near, on_pass: Callable[[int], None]) -> Converged:
    """Solve for N × m × n deviations, m ≥ n, with the nuclear norm, in their precision.

    Raises Unproven where more precision, or another solver, is needed.
    """
    return follow(B, begin(B, scale, tolerance, on_pass), tolerance, on_pass)


def _solution(found: Converged, solver: str) -> Solution:
    return solution_of(found.here, found.start.penalty, found.start.edge, found.proof, solver)
