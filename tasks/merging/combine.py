"""Combining weighted task vectors into τ."""

from collections.abc import Sequence

from tasks.merging import arrays
from tasks.merging.arrays import Array
from tasks.merging.block import Weight
from tasks.parameters.merge import MergeParams


def total(c: Sequence[Weight], deltas: Sequence[Array], params: MergeParams) -> Array:
    """Σ c_i δ_i."""
    return _sum(_votes(c, deltas))


def mean(c: Sequence[Weight], deltas: Sequence[Array], params: MergeParams) -> Array:
    """Σ c_i δ_i / Σ c_i, divided at the end: the mean of equal numbers is then exact."""
    return _sum(_votes(c, deltas)) / _sum(c)


def elected(c: Sequence[Weight], deltas: Sequence[Array], params: MergeParams) -> Array:
    """Σ c_i δ_i / Σ c_i over those that agree in sign with Σ c_i δ_i (Yadav et al. 2023, arXiv 2306.01708).

    Where the sum is zero within rounding no sign is elected, and τ is 0. Without ties.normalize the sum is
    not divided.
    """
    votes = _votes(c, deltas)
    sign = _elect(votes)
    won = weights = 0.0
    for weight, vote in zip(c, votes, strict=True):
        side = vote * sign  # positive where this vote has the elected sign, so sums need no signs below
        agrees = arrays.number(side > 0, side)
        side *= agrees
        won += side
        if params.ties.normalize:
            weights += _times(weight, agrees)
    # where nobody voted, won is 0 and the divisor is made 1
    return sign * won / (weights + (weights == 0.0)) if params.ties.normalize else sign * won


def _elect(votes: Sequence[Array]) -> Array:
    """Return the sign of the sum: 1, −1, or 0 within rounding."""
    balance = _sum(votes)
    # without the tolerance, rounding would decide the sign of votes that cancel
    rounding = 4 * len(votes) * arrays.eps(balance) * sum(abs(vote) for vote in votes)
    return arrays.number(balance > rounding, balance) - arrays.number(balance < -rounding, balance)


def _votes(c: Sequence[Weight], deltas: Sequence[Array]) -> list[Array]:
    return [_times(weight, delta) for weight, delta in zip(c, deltas, strict=True)]


def _sum(terms: Sequence[Array]) -> Array:
    return sum(terms[1:], terms[0])


def _times(weight: Weight, delta: Array) -> Array:
    """Return weight · δ, without a copy where the weight is 1, as it usually is."""
    return delta if isinstance(weight, float) and weight == 1.0 else weight * delta
