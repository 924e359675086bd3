"""Solving with full decompositions in every pass: for many active singular values, or small matrices."""

import math
from collections.abc import Sequence

import torch

from tasks.merging.lore.algebra import Tensor, energy, row_dot
from tasks.merging.lore.duality_gap import DualityGap
from tasks.merging.lore.momentum import Momentum
from tasks.merging.lore.penalty import Deviations, Penalty, Scale, values
from tasks.merging.lore.problem import NotConverged, Solution
from tasks.merging.lore.shrink import Shrunk, shrink, singular

DENSE_PASSES = 10_000
DENSE_SINGLE_PASSES = 300
"""In float32, whose rounding may be what is in the way."""


def solve_densely(B: Tensor, scale: Scale, tolerance: float, passes: int | None = None) -> Solution:
    """Solve for N × m × n deviations, m ≥ n; with `passes`, just so many of Algorithm 1's, converged or not.

    Raises NotConverged naming the gap reached; Unproven where float32 is too coarse.
    """
    N, total_energy = len(B), energy(B)
    spectra = [values(singular(b)) for b in B]
    found = Deviations(spectra, total_energy)
    penalty, edge = scale.penalty(found)
    z = previous = torch.zeros_like(B[0])
    momentum = Momentum()
    limit = passes or (DENSE_PASSES if B.dtype == torch.float64 else DENSE_SINGLE_PASSES)
    for taken in range(1, limit + 1):
        current = penalty if passes else penalty.coming_down(found.largest, taken)
        shrunk = [shrink(b - z, current, tolerance) for b in B]
        S = torch.zeros_like(z)
        for delta, _, _ in shrunk:
            S.addmm_(delta.U * delta.sigma, delta.V.T)
        step = -z - S / N
        accounts = _accounts(total_energy, z, S, shrunk, current)
        gap = accounts.gap(_excess(step, accounts, tolerance))
        if taken == passes or (passes is None and current == penalty and gap <= tolerance):
            return Solution(
                [delta for delta, _, _ in shrunk],
                [sigma for _, sigma, _ in shrunk],
                current,
                list(accounts.thresholds),
                edge,
                taken,
                gap,
                "passes" if passes else "dense",
            )
        if passes is None and current == penalty and accounts.rounding > tolerance * accounts.primal:
            break  # no number of passes will prove it
        moved = z + step
        beta = 0.0 if passes else momentum.after(uphill=float((step * (moved - previous)).sum()) < 0)
        z = moved + beta * (moved - previous)
        previous = moved
    raise NotConverged(
        "LoRE",
        f"relative duality gap {gap:.1e} after {taken} passes, above merge.lore.tolerance {tolerance:.1e}",
        "raise merge.lore.mu or the tolerance",
    )


def _accounts(
    total_energy: float, z: Tensor, S: Tensor, shrunk: Sequence[Shrunk], penalty: Penalty
) -> DualityGap:
    """Account for the task vectors found at z (see DualityGap for what the numbers are)."""
    sigmas = [delta.sigma for delta, _, _ in shrunk]
    thresholds = [t for _, _, t in shrunk]
    aligned = row_dot(z, S) + sum(
        float(((sigma + t).double() * sigma.double()).sum())
        for sigma, t in zip(sigmas, thresholds, strict=True)
    )
    return DualityGap.of(penalty, sigmas, thresholds, aligned, row_dot(S, S) / len(shrunk), total_energy)


def _excess(step: Tensor, accounts: DualityGap, tolerance: float) -> float:
    """Bound how far the dual point exceeds its bound, by ‖step‖_F or, where that decides, ‖step‖_2."""
    size, allowed = float(torch.linalg.matrix_norm(step)), accounts.allowance(tolerance)
    if allowed < size <= math.sqrt(step.shape[1]) * allowed:
        return float(singular(step)[0]) * (1 + 1e-6)
    return size
