"""The convex problem behind LoRE: an approximate base θ_0 plus low-rank task vectors δ_i.

Minimises Σ ½‖θ_0 + δ_i − θ_i‖² + μ‖δ_i‖_* over θ_0 and δ_i (Liu et al. 2025, Algorithm 1, as its update is
printed). With θ_0 refreshed from the final δ, the merge is θ* = mean(θ) + (λ − 1/N)·S, S = Σδ_i.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from tasks.errors import LorelineError
from tasks.merging.svt import Shrunk, energy_edge, noise_edge, spectrum, svt

Tensor = torch.Tensor
MAX_PASSES = 10_000
ROUNDING = 1e-7
"""Below this share of σ_1 a noise edge is rounding, not noise."""


class NotConverged(LorelineError):
    """The solver stopped short of the tolerance."""


class Solution(NamedTuple):
    """What LoRE found for one matrix."""

    total: Tensor
    """S = Σδ_i"""
    deltas: list[Tensor]
    """δ_i, truncated where asked."""
    mu: float
    passes: int
    gap: float
    """Relative duality gap: a bound on how far the objective is from its minimum."""
    ranks: list[int]
    """Rank of each δ_i."""
    share: float
    """‖S‖ / Σ‖θ_i − mean‖: how much of the deviations the task vectors hold."""


def solve(
    thetas: Sequence[Tensor],
    mu: float,
    mu_scale: str,
    rank_ratio: float,
    anchor: int | None,
    tolerance: float,
) -> Solution:
    """Solve for one matrix, given as N float64 tensors m × n.

    `anchor` is the position of the checkpoint that breaks the symmetry of N = 2; beyond that it changes
    nothing, because the minimiser does not depend on the start. Raises NotConverged naming the gap reached.
    """
    if thetas[0].shape[0] < thetas[0].shape[1]:
        flipped = solve([theta.T for theta in thetas], mu, mu_scale, rank_ratio, anchor, tolerance)
        return flipped._replace(total=flipped.total.T, deltas=[delta.T for delta in flipped.deltas])
    N, n = len(thetas), thetas[0].shape[1]
    if N == 2 and anchor is None:
        return _nothing(thetas[0], N, math.nan)  # SVT is odd: δ_1 = −δ_2 for every μ, so S = 0
    B = deviations(thetas)
    largest = max(float(torch.linalg.matrix_norm(b)) for b in B)
    if largest == 0.0:
        return _nothing(thetas[0], N, mu)
    threshold = absolute_mu(B, mu, mu_scale)
    max_rank = max(1, round(rank_ratio * n))
    if N == 2 and anchor is not None:
        moved = svt(thetas[1 - anchor] - thetas[anchor], 2 * threshold, max_rank)
        deltas = [Shrunk(torch.zeros_like(moved.matrix), 0.0, 0)] * 2
        deltas[1 - anchor] = moved
        return _solution(B, deltas, threshold, passes=1, gap=0.0)
    z, passes, gap = minimise(B, threshold, tolerance)
    return _solution(B, [svt(b - z, threshold, max_rank) for b in B], threshold, passes, gap)


def deviations(thetas: Sequence[Tensor]) -> list[Tensor]:
    """Return B_i = θ_i − mean(θ)."""
    mean = torch.stack(list(thetas)).mean(0)
    return [theta - mean for theta in thetas]


def absolute_mu(B: Sequence[Tensor], mu: float, mu_scale: str) -> float:
    """Turn μ in units of `mu_scale` into a singular value.

    Where all is spikes (low-rank adapters, computed exactly) an edge of 0 would ask for the spectral median,
    which takes σ_1/μ passes: then nothing counts as a spike, and the edge is that of the whole energy.
    """
    if mu_scale == "absolute":
        return mu
    sigma1 = max(float(spectrum(b).sigma[0]) for b in B)
    if mu_scale == "sigma1":
        return mu * sigma1
    edge = noise_edge(B)
    return mu * (edge if edge > ROUNDING * sigma1 else energy_edge(B))


def minimise(B: Sequence[Tensor], mu: float, tolerance: float) -> tuple[Tensor, int, float]:
    """Find z = θ_0 − mean by FISTA with gradient restart; return it with passes and relative duality gap."""
    z = previous = torch.zeros_like(B[0])
    momentum = 1.0
    gap = math.inf
    for passes in range(1, MAX_PASSES + 1):
        shrunk = [svt(b - z, mu) for b in B]
        clips = [b - z - delta.matrix for b, delta in zip(B, shrunk, strict=True)]
        step = torch.stack(clips).mean(0)
        gap = duality_gap(B, clips, step, sum(delta.nuclear for delta in shrunk), mu)
        if gap <= tolerance:
            return z, passes, gap
        moved = z + step
        if float((step * (moved - previous)).sum()) < 0:
            momentum = 1.0
        following = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
        z = moved + (momentum - 1) / following * (moved - previous)
        previous, momentum = moved, following
    raise NotConverged(
        f"LoRE: relative duality gap {gap:.1e} after {MAX_PASSES} passes, above merge.lore.tolerance "
        f"{tolerance:.1e}; raise merge.lore.mu or the tolerance"
    )


def duality_gap(
    B: Sequence[Tensor], clips: Sequence[Tensor], step: Tensor, nuclear: float, mu: float
) -> float:
    """Return a true upper bound on the relative distance to the minimum (methods.md § 2, fact 5).

    Primal at the refreshed θ_0; dual at Y_i = Clip_i − mean(Clip), scaled until every ‖Y_i‖_2 ≤ μ. That norm
    is at most μ + ‖mean(Clip)‖_F, which costs no further decomposition and tends to μ at the solution.
    """
    duals = [clip - step for clip in clips]
    squares = sum(float(dual.square().sum()) for dual in duals)
    primal = squares / 2 + mu * nuclear
    scale = mu / (mu + float(torch.linalg.matrix_norm(step)))
    inner = sum(float((dual * b).sum()) for dual, b in zip(duals, B, strict=True))
    dual_value = scale * inner - scale**2 * squares / 2
    return max(primal - dual_value, 0.0) / primal if primal > 0 else 0.0


def _nothing(like: Tensor, N: int, mu: float) -> Solution:
    zero = torch.zeros_like(like)
    return Solution(zero, [zero] * N, mu, 0, 0.0, [0] * N, 0.0)


def _solution(B: Sequence[Tensor], deltas: Sequence[Shrunk], mu: float, passes: int, gap: float) -> Solution:
    matrices = [delta.matrix for delta in deltas]
    total = torch.stack(matrices).sum(0)
    spread = sum(float(torch.linalg.matrix_norm(b)) for b in B)
    ranks = [delta.rank for delta in deltas]
    return Solution(total, matrices, mu, passes, gap, ranks, float(torch.linalg.matrix_norm(total)) / spread)
