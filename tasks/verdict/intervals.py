"""Confidence intervals and tests of means and paired gains: pure functions on one value per item."""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.base.records import Interval

ItemValues = NDArray[np.float64]

CONFIDENCE = 0.95
POWER = 0.8
"""Of `items_needed`."""
RESAMPLES = 9999
BATCH_ELEMENTS = 2**22
"""Numbers that are resampled at a time, which bounds the memory."""


class PairedGain(NamedTuple):
    """The merge against another model; `p_value` is None unless every value is 0 or 1."""

    interval: Interval
    wins: int
    losses: int
    p_value: float | None


def mean_interval(values: ArrayLike, seed: int) -> Interval:
    """Return the mean and its 95 % interval: Wilson's for values of 0 and 1, else a bootstrap."""
    data = _sorted(values)
    if not _is_binary(data):
        return _bootstrap(data, seed)
    from scipy.stats import binomtest

    share = binomtest(int(data.sum()), data.size).proportion_ci(CONFIDENCE, method="wilson")
    return Interval(mean=float(data.mean()), low=float(share.low), high=float(share.high))


def paired_gain(merge: ArrayLike, other: ArrayLike, higher_is_better: bool, seed: int) -> PairedGain:
    """Compare two models item by item; a positive gain means that the merge is better."""
    gains = gains_of(merge, other, higher_is_better)
    both_binary = _is_binary(np.asarray(merge)) and _is_binary(np.asarray(other))
    return PairedGain(
        interval=_bootstrap(_sorted(gains), seed),
        wins=int((gains > 0).sum()),
        losses=int((gains < 0).sum()),
        p_value=mcnemar(merge, other) if both_binary else None,
    )


def gains_of(merge: ArrayLike, other: ArrayLike, higher_is_better: bool) -> ItemValues:
    """Return the differences per item, signed so that positive means the merge is better."""
    difference: ItemValues = np.asarray(merge, float) - np.asarray(other, float)
    return difference if higher_is_better else -difference


def mcnemar(merge: ArrayLike, other: ArrayLike) -> float:
    """Return the exact two-sided p-value that wins and losses on 0/1 items are equally likely."""
    from scipy.stats import binomtest

    difference = np.asarray(merge, float) - np.asarray(other, float)
    wins, discordant = int((difference > 0).sum()), int((difference != 0).sum())
    return float(binomtest(wins, discordant).pvalue) if discordant else 1.0


def items_needed(gains: ArrayLike, min_gain: float) -> int | None:
    """Return how many items would show on which side of `min_gain` the mean gain lies, with 80 % power.

    Normal theory with the observed mean and spread; None where the mean is at `min_gain` or the spread is 0.
    """
    from scipy.stats import norm

    data = np.asarray(gains, float)
    distance = abs(float(data.mean()) - min_gain)
    spread = float(data.std(ddof=1)) if data.size > 1 else 0.0
    if distance == 0 or spread == 0:
        return None
    z = float(norm.ppf((1 + CONFIDENCE) / 2) + norm.ppf(POWER))
    return math.ceil((z * spread / distance) ** 2)


def _bootstrap(data: ItemValues, seed: int) -> Interval:
    """Return the mean's BCa bootstrap interval (Efron 1987).

    Unlike percentiles it corrects for skewness, such as the long tail of likelihoods on hard items.
    """
    from scipy.stats import bootstrap

    mean = float(data.mean())
    scale = float(np.abs(data - mean).max())
    if data[0] == data[-1] or scale == 0:
        return Interval(mean=mean, low=mean, high=mean)
    found: Any = bootstrap(
        ((data - mean) / scale,),  # tiny or huge numbers would under- or overflow when they are cubed
        np.mean,
        n_resamples=RESAMPLES,
        batch=max(1, BATCH_ELEMENTS // data.size),
        confidence_level=CONFIDENCE,
        method="BCa",
        rng=np.random.default_rng(seed),
    )
    low, high = (mean + scale * float(end) for end in found.confidence_interval)
    return Interval(mean=mean, low=min(low, mean), high=max(high, mean))


def _sorted(values: ArrayLike) -> ItemValues:
    """Return the values sorted: resampling picks by position, and the items' order must not matter."""
    return np.sort(np.asarray(values, float))


def _is_binary(values: NDArray[Any]) -> bool:
    return bool(np.isin(values, (0, 1)).all())
