"""Full decompositions in every pass, float64: the squared penalty, printed passes, and the last resort."""

import math
from collections.abc import Callable, Sequence

import torch

from tasks.merging.lore.algebra import Tensor, energy, row_dot
from tasks.merging.lore.duality_gap import DualityGap
from tasks.merging.lore.momentum import Momentum
from tasks.merging.lore.penalty import Deviations, Penalty, Scale, values
from tasks.merging.lore.problem import NotConverged, Solution
from tasks.merging.lore.shrink import Shrunk, shrink
from tasks.merging.lore.spectrum import singular

DENSE_PASSES = 10_000
"""Passes before giving up; 12 to 18 are usual, 100 where much is active."""


def solve_densely(
    B: Tensor, scale: Scale, tolerance: float, on_pass: Callable[[int], None], passes: int | None = None
) -> Solution:
    """Solve for N × m × n deviations, m ≥ n; with `passes`, run that many of Algorithm 1, converged or not.

    Also the last resort where Newton's method proves nothing. Raises NotConverged naming the gap reached.
    """
    N, total_energy = len(B), energy(B)
    # The scale of μ may depend on the spectra (σ_1, noise edge), so they come before everything else.
    spectra = [values(singular(b)) for b in B]
    found = Deviations(spectra, total_energy)
    penalty, edge = scale.penalty(found)
    z = previous = torch.zeros_like(B[0])
    momentum = Momentum()
    for taken in range(1, (passes or DENSE_PASSES) + 1):
        on_pass(taken)
        current = penalty if passes else penalty.coming_down(found.largest, taken)
        shrunk = [shrink(b - z, current, tolerance) for b in B]
        S = torch.zeros_like(z)
        for delta, _, _ in shrunk:
            S.addmm_(delta.U * delta.sigma, delta.V.T)
        step = -z - S / N  # a gradient step of length 1: to the best z for these task vectors, −S/N (fact 2)
        duality = _duality_gap(total_energy, z, S, shrunk, current)
        gap = duality.gap(_excess(step, duality, tolerance))
        if taken == passes or (passes is None and current == penalty and gap <= tolerance):
            return Solution(
                [delta for delta, _, _ in shrunk],
                [sigma for _, sigma, _ in shrunk],
                current,
                list(duality.thresholds),
                edge,
                taken,
                gap,
                math.inf,
                "passes" if passes else "dense",
            )
        if passes is None and current == penalty and duality.rounding > tolerance * duality.primal:
            break  # rounding alone exceeds the tolerance: no number of passes can prove it
        moved = z + step
        # Algorithm 1 as printed has no momentum; uphill: the step points against the last move
        beta = 0.0 if passes else momentum.after(uphill=float((step * (moved - previous)).sum()) < 0)
        z = moved + beta * (moved - previous)
        previous = moved
    raise NotConverged(
        "LoRE",
        f"relative duality gap {gap:.1e} after {taken} passes, above merge.lore.tolerance {tolerance:.1e}",
        "raise merge.lore.mu or the tolerance",
    )


def _duality_gap(
    total_energy: float, z: Tensor, S: Tensor, shrunk: Sequence[Shrunk], penalty: Penalty
) -> DualityGap:
    """Return the duality gap's terms for the task vectors found at z."""
    sigmas = [delta.sigma for delta, _, _ in shrunk]
    thresholds = [t for _, _, t in shrunk]
    # Σ⟨B_i, δ_i⟩ = ⟨z, S⟩ + Σ⟨B_i − z, δ_i⟩, and δ_i has B_i − z's own singular vectors: Σ (σ + t)σ.
    aligned = row_dot(z, S) + sum(
        float(((sigma + t).double() * sigma.double()).sum())
        for sigma, t in zip(sigmas, thresholds, strict=True)
    )
    return DualityGap.of(penalty, sigmas, thresholds, aligned, row_dot(S, S) / len(shrunk), total_energy)


def _excess(step: Tensor, duality: DualityGap, tolerance: float) -> float:
    """Return an upper bound on ‖step‖_2, by which ‖Y_i‖_2 exceeds its threshold: Y_i = Clip(B_i − z) − step.

    ‖step‖_F is cheap and large enough; singular values are computed only where they decide.
    """
    size, allowed = float(torch.linalg.matrix_norm(step)), duality.allowance(tolerance)
    # ‖step‖_2 lies between ‖step‖_F/√n and ‖step‖_F: outside this range it would not change the answer
    if allowed < size <= math.sqrt(step.shape[1]) * allowed:
        return float(singular(step)[0]) * (1 + 1e-6)  # the factor covers the rounding of `singular`
    return size
