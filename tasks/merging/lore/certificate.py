"""Proving how near an iterate is to the minimum, whoever found it (docs/mathematics.md, fact 5).

What is proven of every A_i = B_i − z: its leading triplets are those of a matrix no further away than their
residuals, and nothing beside them exceeds a limit below μ. So Clip_μ(A_i) is known up to the residuals, hence
the slope ΣClip_μ(A_i) of the fit, and with its curvature the distance of z from the minimiser.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from tasks.merging.lore.algebra import (
    ROUNDING,
    Factors,
    MatrixLike,
    Tensor,
    energy,
    shifted,
    times,
    transposed,
)
from tasks.merging.lore.norm_bound import bounded
from tasks.merging.lore.problem import FLAT, GAP_INSTEAD, Iterate, Near, Proof, Sharpness

CAUTION = 0.8
"""Share of the tolerance that an estimate must reach before a proof is tried: it does not know residuals."""
FURTHER = 0.125
"""Share of the radius that curvature reaches beyond what is asked: residuals take some of that."""
MARGIN = 1 / 6
"""Of the way from the cut to μ: where nothing but the leading triplets is proven to reach."""


def met(proof: Proof, tolerance: float | Near) -> bool:
    """Tell whether what is proven suffices."""
    if isinstance(tolerance, Near):
        flat = proof.curvature is not None and proof.curvature <= FLAT
        return proof.error <= tolerance.distance or (flat and proof.gap <= GAP_INSTEAD)
    return proof.gap <= tolerance


class Residuals(NamedTuple):
    """How far every B_i − z is, at most, from a matrix with exactly the triplets found."""

    active: list[float]
    """With those that exceed μ, or might: the task vectors depend on no others."""
    all: list[float]


def residuals(B: Tensor, here: Iterate) -> Residuals:
    """Return the residuals of N × m × n deviations at an iterate."""
    size, level = math.sqrt(here.norms.energy), here.mu - radius_of(here)
    found = [
        distances_from(
            shifted(b, here.z), own, [own.above(level).rank, own.rank], math.sqrt(energy(b)) + size
        )
        for b, own in zip(B, here.leading, strict=True)
    ]
    return Residuals(*(list(part) for part in zip(*found, strict=True)))


def prove(B: Tensor, total: float, here: Iterate, sharp: Sharpness, left: Residuals) -> Proof | None:
    """Return what can be proven of an iterate for N × m × n deviations, `total` = Σ‖B_i‖².

    None where leading triplets are missing.
    """
    return if_complete(total, here, sharp, left) if complete(B, here, left) else None


def if_complete(total: float, here: Iterate, sharp: Sharpness, left: Residuals) -> Proof:
    """Return what is proven if no leading triplets are missing, which takes most of the time to show."""
    error = distance(sharp, sum(left.active))
    # C is that of matrices as far away as the residuals
    far = error + max(left.all) >= sharp.within
    return Proof(relative_gap(here, total, left.active), math.inf if far else error, sharp.curvature)


def complete(B: Tensor, here: Iterate, left: Residuals) -> bool:
    """Prove that no triplet above the limit is missing, and that those found are what they seem."""
    most = limit_of(here)
    return max(left.all) <= radius_of(here) and all(
        bounded(shifted(b, here.z), found, most) for b, found in zip(B, here.leading, strict=True)
    )


def relative_gap(here: Iterate, total: float, distances: Sequence[float]) -> float:
    """Return the gap between the objective and the dual point s·Y, Y_i = A_i − δ_i − step.

    The Y_i sum to zero, and none exceeds μ by more than `excess`: s = μ/(μ + excess) makes them feasible. The
    objective less the dual value is (1 − s)²/2 · Σ‖Y_i‖² + Σ(μ‖δ_i‖_* − s⟨Y_i, δ_i⟩); and as A_i has, but for
    its distance, δ_i's singular vectors, Σ⟨Y_i, δ_i⟩ = μΣ‖δ_i‖_* − ⟨step, S⟩.
    """
    N, mu = len(here.deltas), here.mu
    sigmas = [delta.sigma.double() for delta in here.deltas]
    prices = mu * sum(float(sigma.sum()) for sigma in sigmas)
    taken = sum(float((sigma * (sigma + 2 * mu)).sum()) for sigma in sigmas)  # σ² − μ², σ what A_i has
    squares = max(total + N * (here.norms.energy - here.norms.length**2) - taken, 0.0)  # Σ‖Y_i‖²
    s = mu / (mu + max(distances) + here.norms.length)
    pulled = -N * (here.norms.along + here.norms.length**2)  # ⟨step, S⟩
    aside = sum(
        distance * float(torch.linalg.vector_norm(sigma))
        for distance, sigma in zip(distances, sigmas, strict=True)
    )
    gap = (1 - s) ** 2 / 2 * squares + (1 - s) * prices + s * max(pulled + aside, 0.0)
    objective = squares / 2 + prices - ROUNDING * torch.finfo(here.z.core.dtype).eps * total
    return gap / objective if objective > 0 else (0.0 if gap == 0.0 else math.inf)


def distance(sharp: Sharpness, residual: float) -> float:
    """Return the bound on ‖z − z*‖_F, the slope being known but for a residual; if it is within the radius.

    With x = z − z*, the slope r and C as in `Sharpness`, ⟨x, Cx⟩ ≤ 2⟨r, x⟩, twice for how the curvature
    changes on the way: x lies within an ellipsoid around C⁻¹r, ‖C^½x − C^−½r‖ ≤ ‖C^−½r‖, and C is nowhere
    smaller than the curvature.
    """
    if not sharp.curvature:
        return math.inf
    return sharp.shift + sharp.force / math.sqrt(sharp.curvature) + 2 * residual / sharp.curvature


def limit_of(here: Iterate) -> float:
    """Return what no singular value beside the leading ones exceeds."""
    return limit(here.cut, here.mu)


def limit(cut: float, mu: float) -> float:
    """Return the limit for the triplets above cut · μ."""
    return (cut + MARGIN * (1 - cut)) * mu


def radius_of(here: Iterate) -> float:
    """Return how far z may be from the minimiser for the curvature at z to tell its distance."""
    return radius(here.cut, here.mu)


def radius(cut: float, mu: float) -> float:
    """Return that radius for the triplets above cut · μ."""
    return (mu - limit(cut, mu)) / 2


def reach(cut: float, mu: float, asked: float) -> float:
    """Return how far from there curvature is to tell a distance: the less, the more of it is known."""
    most = radius(cut, mu)
    return min(most, asked) + FURTHER * most


def distances_from(A: MatrixLike, found: Factors, counts: Sequence[int], size: float) -> list[float]:
    """Return how far A is, at most, from a matrix with exactly so many of these triplets, ‖·‖_F.

    `size` is that of what A is computed from.
    """
    right, left = (
        times(A, found.V) - found.U * found.sigma,
        times(transposed(A), found.U) - found.V * found.sigma,
    )
    columns = torch.hypot(torch.linalg.vector_norm(right, dim=0), torch.linalg.vector_norm(left, dim=0))
    rounding = ROUNDING * torch.finfo(found.U.dtype).eps * size
    return [float(torch.linalg.vector_norm(columns[:count])) + rounding for count in counts]
