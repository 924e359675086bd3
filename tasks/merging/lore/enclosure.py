"""How far from the mean any minimiser can lie, by what is known at any z (docs/mathematics.md, fact 5).

Curvature tells a distance only next to the minimiser. Weights in bfloat16 need far less than that: there this
bound, which holds wherever z lies and whether or not the minimiser is unique, ends it passes earlier.
"""

import math
from collections.abc import Sequence

import torch

from tasks.merging.lore.algebra import Factors, add_up, gram_matrix, inner
from tasks.merging.lore.columns import orthonormal_basis
from tasks.merging.lore.problem import Iterate

SLACK, ROUNDING = 0.01, 8
"""For rounding: of the bound, a share; of the step, in units of ε and what it is the difference of."""


def encloses(here: Iterate, limit: float, distance: float) -> bool:
    """Estimate whether z is proven to be within a distance, in no time where it is not."""
    prices = sum(float(delta.sigma.sum()) for delta in here.deltas)
    within = prices / len(here.deltas) <= distance  # never less than the mean of the ‖δ_i‖_*
    return within and error_anywhere(here, limit, [0.0] * len(here.deltas)) <= distance


def error_anywhere(here: Iterate, limit: float, distances: Sequence[float]) -> float:
    """Return an upper bound on ‖z − z*‖_F for every minimiser z*: both lie in a ball around the mean."""
    return math.sqrt(here.norms.energy) + from_mean(here, limit, distances)


def from_mean(here: Iterate, limit: float, distances: Sequence[float]) -> float:
    """Return a bound on ‖z*‖_F for every minimiser z*; infinite where z is too far from one for that.

    `limit` is what no singular value beside the leading ones exceeds, `distances` are the residuals of these.
    The Y_i = A_i − SVT(A_i; limit) − step sum to zero, and none exceeds μ − θ. So for any z' the
    Y_i − θz'/‖z'‖ are feasible for the dual problem with z' held fixed: its objective is at least the dual
    value of Y plus Nθ‖z'‖ − Nθ²/2. At a minimiser it is no more than that of the task vectors here.
    """
    N, mu = len(here.deltas), here.mu
    lower = [part.thresholded(limit) for part in here.leading]
    S = add_up(lower)
    room = mu - limit - max(distances) - _longest(here, S)
    if room <= 0:
        return math.inf
    aside = sum(
        distance * float(torch.linalg.vector_norm(delta.sigma))
        for distance, delta in zip(distances, here.deltas, strict=True)
    )
    squares = _squares(lower) - _squares(here.deltas) - inner(S, S) / N
    gap = max((squares + N * (here.norms.energy - here.norms.length**2)) / 2 + aside, 0.0)
    theta = min(room, math.sqrt(2 * gap / N)) or room
    return (1 + SLACK) * (gap / (N * theta) + theta / 2)


def _squares(parts: Sequence[Factors]) -> float:
    return sum(float(part.sigma.double().square().sum()) for part in parts)


def _longest(here: Iterate, S: Factors) -> float:
    """Return what no singular value of the step −z − S/N exceeds: (Σσ⁸)^⅛, from products of few columns."""
    z = here.z
    left = torch.cat([z.U @ z.core, S.U * (S.sigma / len(here.deltas))], 1)
    # z and S/N nearly cancel: that has to happen before anything is squared
    squares = gram_matrix(left @ orthonormal_basis(torch.cat([z.V, S.V], 1))[1].T)
    rounding = ROUNDING * torch.finfo(left.dtype).eps * float(torch.linalg.matrix_norm(left))
    return math.sqrt(math.sqrt(float(torch.linalg.matrix_norm(squares @ squares)))) + rounding
