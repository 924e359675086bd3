"""Means over items that may belong together, and their intervals: pure functions on one value per item."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.base.records.record import Interval

ItemValues = NDArray[np.float64]

LEVEL = 0.025
"""Of each side of an interval: 95 % lie between its ends."""
POWER = 0.8
FEWEST_ITEMS, FEWEST_CLUSTERS = 100, 30
"""Fewer never promote: the intervals, and the standard errors by clusters, are theory of large numbers."""


class Estimate(NamedTuple):
    """A mean, its standard error and the skewness of its distribution; degrees of freedom of the error."""

    mean: float
    error: float
    skewness: float
    freedom: int


def estimate_mean(values: ArrayLike, clusters: Sequence[str] = (), weights: Sequence[float] = ()) -> Estimate:
    """Estimate a weighted mean, with its standard error by clusters; without clusters by items.

    SE = (1/n)·√(Σ_g (Σ_{i∈g} (d_i − d̄))²)·√(G/(G − 1)): Miller 2024, arXiv 2411.00640.
    """
    mean, shares = influences(values, weights)
    if not clusters:
        return estimate_sum(mean, shares)
    _, codes = np.unique(clusters, return_inverse=True)
    return estimate_sum(mean, np.bincount(codes, shares).astype(float))


def influences(values: ArrayLike, weights: Sequence[float] = ()) -> tuple[float, ItemValues]:
    """Return the weighted mean and how much each item moves it: w_i·(d_i − d̄)/Σw, which add up to zero."""
    data = np.asarray(values, float)
    counts = np.asarray(weights, float) if weights else np.ones(data.size)
    total = float(counts.sum())
    mean = float((counts * data).sum()) / total
    return mean, counts * (data - mean) / total


def estimate_sum(mean: float, moved: ItemValues) -> Estimate:
    """Estimate a mean from how much each independent unit (item or cluster) moves it."""
    units = moved.size
    spread = float(np.linalg.norm(moved))
    if units < 2 or spread == 0:
        return Estimate(mean, 0.0, 0.0, max(units - 1, 1))
    error = spread * math.sqrt(units / (units - 1))
    return Estimate(mean, error, float(((moved / spread) ** 3).sum()), units - 1)


def interval(estimate: Estimate, level: float = LEVEL) -> Interval:
    """Return Student's interval, each end moved outwards by what the skewness adds to it.

    mean ± SE·(t + |γ|·(2t² + 1)/6) on the side of the tail, where γ is the skewness of the mean: the first
    term of the Edgeworth series of Student's t (Johnson 1978; Hall 1988, Annals of Statistics 16, 927). It is
    never moved inwards: a sample without its tail looks narrower than it is. `level` is that of either end.
    """
    from scipy.special import stdtrit

    t = float(stdtrit(estimate.freedom, 1 - level))
    tail = estimate.skewness * (2 * t**2 + 1) / 6
    return Interval(
        mean=estimate.mean,
        low=estimate.mean - estimate.error * (t + max(0.0, -tail)),
        high=estimate.mean + estimate.error * (t + max(0.0, tail)),
    )


def score_interval(
    values: ArrayLike, clusters: Sequence[str] = (), weights: Sequence[float] = ()
) -> Interval:
    """Return one model's mean and its 95 % interval: Wilson's for independent values of 0 and 1."""
    data = np.asarray(values, float)
    if clusters or weights or not _is_binary(data):
        return interval(estimate_mean(data, clusters, weights))
    return _wilson(float(data.mean()), data.size)


def found_with(error: float, level: float = LEVEL) -> float:
    """Return the smallest gain that is found four times in five: (z_level + z_power)·SE, 2.8·SE at 2.5 %."""
    from scipy.special import ndtri

    return float(ndtri(1 - level) + ndtri(POWER)) * error


def _wilson(share: float, items: int) -> Interval:
    """Return Wilson's 95 % interval of a share (1927)."""
    from scipy.special import ndtri

    z = float(ndtri(1 - LEVEL))
    centre = (share + z**2 / (2 * items)) / (1 + z**2 / items)
    half = z / (1 + z**2 / items) * math.sqrt(share * (1 - share) / items + z**2 / (4 * items**2))
    low, high = max(0.0, centre - half), min(1.0, centre + half)  # rounding may carry an end past 0 or 1
    return Interval(mean=share, low=min(share, low), high=max(share, high))


def _is_binary(values: NDArray[Any]) -> bool:
    return bool(((values == 0) | (values == 1)).all())
