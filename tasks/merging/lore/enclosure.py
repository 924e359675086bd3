"""How far from the mean any minimiser can lie, by what is known at any z (docs/mathematics.md, fact 5).

Curvature tells a distance only next to the minimiser. Weights in bfloat16 need far less than that: there this
bound ends it passes earlier, often at the mean. It holds wherever z lies, however sharp the triplets are and
whether or not the minimiser is unique: all that is proven is that no singular value of some matrices, which
sum to zero, exceeds a level below μ.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from tasks.merging.lore.algebra import (
    ROUNDING,
    Factors,
    Norms,
    Shifted,
    Tensor,
    add_up,
    gram_matrix,
    inner,
    product,
)
from tasks.merging.lore.norm_bound import bounded
from tasks.merging.lore.place import best_base, nowhere
from tasks.merging.lore.problem import Iterate, Proof, Start

SLACK = 0.01
"""Share of the bound, for rounding."""
ALIGNED = 0.9
"""Of the step's largest singular value: what it usually adds to that of the matrix that it is added to."""
SURE, LESS_SURE = (0.8, 0.8), (0.6, 0.3)
"""Shares of the room below μ that are asked for where less would do, because more might not be there: at most
and, if that proves enough, at least. First usually, then where triplets are not sharp."""
GUESSED = 0.9
"""Share of μ down to which a guess's triplets are cut: what it knows nothing of may reach as high."""
ENOUGH_PROVEN = 0.9
"""Share of the distance that is enough."""
FINEST = 1e-3
"""The smallest θ that is tried, in units of that room."""
SQUARINGS = 6
"""For the largest of many singular values: (Σσ^2k)^(1/2k), k doubled that often."""


class Enclosure(NamedTuple):
    """What has to hold for every minimiser to lie within a distance: no B_i − P_i exceeds μ − θ."""

    lower: list[Factors]
    """SVT(A_i; L), of which P_i is the deviation from the mean."""
    gap: float
    """G, the objective less the dual value of the B_i − P_i, if the triplets are exact."""
    moved: float
    """‖S‖_F/N, how far the θ_0 that is written is from the mean."""
    theta: float

    @property
    def error(self) -> float:
        """An upper bound on ‖−S/N − z*‖_F for every minimiser z*."""
        return self.moved + _from_mean(self.gap, len(self.lower), self.theta)


def at_mean(start: Start, like: Tensor) -> Iterate | None:
    """Return the iterate z = 0, of which the first look knows all; None where it is not deep enough."""
    mu = start.penalty.mu
    depth = max((float(part.sigma[-1]) for part in start.leading), default=mu)
    if depth >= mu:
        return None
    deltas = [part.thresholded(mu) for part in start.leading]
    norms = Norms(0.0, _moved(deltas), 0.0)
    return Iterate(nowhere(like), list(start.leading), deltas, norms, mu, depth / mu, 1)


def at_guess(guess: list[Factors], mu: float, cut: float) -> Iterate:
    """Return the iterate that a guess of the leading triplets of every A_i makes, z = −S/N.

    That is found without the matrices: the triplets need not be theirs.
    """
    cut = max(cut, GUESSED)
    deltas = [part.thresholded(mu) for part in guess]
    norms = Norms(_moved(deltas) ** 2, 0.0, 0.0)
    return Iterate(best_base(deltas), [part.above(cut * mu) for part in guess], deltas, norms, mu, cut, 1)


def enclosure_within(here: Iterate, distance: float, sure: tuple[float, float] = SURE) -> Enclosure | None:
    """Estimate what would prove that all minimisers are within a distance of θ_0; None where little would."""
    N, mu, level = len(here.deltas), here.mu, here.cut * here.mu
    if sum(float(delta.sigma.sum()) for delta in here.deltas) > N * distance:
        return None  # the bound is never less than the mean of the ‖δ_i‖_*
    lower = [part.thresholded(level) for part in here.leading]
    S, own, squares = add_up(lower), add_up(here.deltas), _squares(lower)
    moved, pulled = inner(own, own), inner(S, S)
    # ½Σ‖P_i‖² − Σ⟨B_i, δ_i⟩ + ½Σ‖δ_i − S/N‖² + μΣ‖δ_i‖_*
    gap = (squares - _squares(here.deltas) - (pulled + moved) / N) / 2 - _along(here, own)
    gap = max(gap, 0.0) + ROUNDING * torch.finfo(S.sigma.dtype).eps * squares
    moved = math.sqrt(max(moved, 0.0)) / N
    room = mu - level - ALIGNED * _longest(here, S)
    least = _least_theta(gap, N, (1 - SLACK) * distance - moved)  # triplets that are not exact add to G
    if least is None or room < least or room <= 0:
        return None
    best = math.sqrt(2 * gap / N)  # makes the bound smallest
    enough = _least_theta(gap, N, ENOUGH_PROVEN * (1 - SLACK) * distance - moved) or room
    usual, smaller = (min(share * room, max(best, FINEST * room)) for share in sure)
    return Enclosure(lower, gap, moved, max(least, min(usual, max(enough, smaller))))


def prove_anywhere(B: Tensor, total: float, here: Iterate, enclosure: Enclosure) -> Proof | None:
    """Return what an enclosure proves for N × m × n deviations, `total` = Σ‖B_i‖²; None where it is not one.

    For any z' the B_i − P_i − θz'/‖z'‖ are feasible for the dual problem with z' held fixed: its objective is
    at least the dual value of the B_i − P_i plus Nθ‖z'‖ − Nθ²/2. At a minimiser it is no more than that of
    the task vectors here.
    """
    lower, N = enclosure.lower, len(B)
    sums, mean = add_up(lower), best_base(lower).spread()
    level = here.mu - enclosure.theta
    if not all(bounded(Shifted(b, mean), own, level) for b, own in zip(B, lower, strict=True)):
        return None
    # the triplets are those of A_i but for their residuals
    missing = sum(
        float((delta.sigma * (delta.sigma + here.mu)).double().sum())
        - float(((product(b, delta.V) - here.z.times(delta.V)) * (delta.U * delta.sigma)).double().sum())
        for b, delta in zip(B, here.deltas, strict=True)
    )
    proven = enclosure._replace(gap=max(enclosure.gap + missing, 0.0))
    objective = (total - _squares(lower) + inner(sums, sums) / N) / 2 + proven.gap
    objective -= ROUNDING * torch.finfo(B.dtype).eps * total
    gap = proven.gap / objective if objective > 0 else (0.0 if proven.gap == 0.0 else math.inf)
    return Proof(gap, proven.error, None)


def _from_mean(gap: float, N: int, theta: float) -> float:
    """Return the bound on ‖z*‖_F."""
    return (1 + SLACK) * (gap / (N * theta) + theta / 2)


def _least_theta(gap: float, N: int, distance: float) -> float | None:
    """Return the smallest θ by whose bound z* is within a distance; None where there is none."""
    half = distance / (1 + SLACK)
    inside = half**2 - 2 * gap / N
    if half <= 0 or inside < 0:
        return None
    return 2 * gap / N / (half + math.sqrt(inside))


def _moved(deltas: Sequence[Factors]) -> float:
    """Return ‖S‖_F/N."""
    S = add_up(deltas)
    return math.sqrt(max(inner(S, S), 0.0)) / len(deltas)


def _squares(parts: Sequence[Factors]) -> float:
    return sum(float(part.sigma.double().square().sum()) for part in parts)


def _along(here: Iterate, S: Factors) -> float:
    """Return ⟨z, S⟩."""
    z = here.z
    core = (z.U.T @ (S.U * S.sigma)) @ (S.V.T @ z.V)
    return float((core.double() * z.core.double()).sum())


def _longest(here: Iterate, S: Factors) -> float:
    """Return about the largest singular value of the step −z − S/N, from products of few columns."""
    z = here.z
    left = torch.cat([z.U @ z.core, S.U * (S.sigma / len(here.deltas))], 1)
    power = gram_matrix(left).double() @ gram_matrix(torch.cat([z.V, S.V], 1)).double()
    exponent, size = 0.5, 1.0
    for _ in range(SQUARINGS):
        norm = float(torch.linalg.matrix_norm(power)) or 1.0
        size, power = size * norm**exponent, power @ power / norm**2
        exponent /= 2
    return size * math.pow(float(power.diagonal().sum().clamp(min=0.0)), exponent)
