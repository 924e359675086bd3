"""How weighted task vectors become τ."""

from collections.abc import Sequence

from tasks.merging import arrays
from tasks.merging.arrays import Array
from tasks.merging.block import Weight
from tasks.parameters.merge import MergeParams


def total(c: Sequence[Weight], deltas: Sequence[Array], params: MergeParams) -> Array:
    """Σ c_i δ_i."""
    return _sum(_votes(c, deltas))


def mean(c: Sequence[Weight], deltas: Sequence[Array], params: MergeParams) -> Array:
    """Σ c_i δ_i / Σ c_i; dividing at the end keeps exact ties exact."""
    return _sum(_votes(c, deltas)) / _sum(c)


def elected(c: Sequence[Weight], deltas: Sequence[Array], params: MergeParams) -> Array:
    """Σ c_i δ_i / Σ c_i over those that agree in sign with Σ c_i δ_i (Yadav et al. 2023, arXiv 2306.01708).

    Where the sum is zero but for rounding nobody is elected: 0. Without ties.normalize nothing is divided.
    """
    votes = _votes(c, deltas)
    sign = _elect(votes)
    won = weights = 0.0
    for weight, vote in zip(c, votes, strict=True):
        side = vote * sign
        agrees = arrays.number(side > 0, side)
        side *= agrees
        won += side
        if params.ties.normalize:
            weights += _times(weight, agrees)
    return sign * won / (weights + (weights == 0.0)) if params.ties.normalize else sign * won


def _elect(votes: Sequence[Array]) -> Array:
    """Return the sign of the sum: 1, −1, or 0 within rounding."""
    balance = _sum(votes)
    rounding = 4 * len(votes) * arrays.eps(balance) * sum(abs(vote) for vote in votes)
    return arrays.number(balance > rounding, balance) - arrays.number(balance < -rounding, balance)


def _votes(c: Sequence[Weight], deltas: Sequence[Array]) -> list[Array]:
    return [_times(weight, delta) for weight, delta in zip(c, deltas, strict=True)]


def _sum(terms: Sequence[Array]) -> Array:
    return sum(terms[1:], terms[0])


def _times(weight: Weight, delta: Array) -> Array:
    """Spare the multiplication by one, which is the commonest weight."""
    return delta if isinstance(weight, float) and weight == 1.0 else weight * delta
