"""Weights that do what is left of a decay of the learning rate (after WSM, Tian et al. 2025, 2507.17634)."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tasks.trajectory.learning_rate import Rate


def decay_weights(steps: Sequence[int], rates: Sequence[Rate]) -> list[float]:
    """Return weights of checkpoints at these steps that leave each increment the share a linear decay would.

    The increment of segment i keeps w_i = Σ min(η*, η)/Σ η, with η* the decay from η(t_0) to 0 at t_k, and
    c_0 = 1 − w_1, c_j = w_j − w_{j+1}, c_k = w_k. At a constant rate these are nearly the plain average;
    after a decay all weight is on the last. Without rates the rate counts as constant.
    """
    if len(steps) == 1:
        return [1.0]
    first, last = steps[0], steps[-1]
    kept = []
    for begin, end in pairwise(steps):
        at = np.linspace(begin, end, 201)[:-1] + (end - begin) / 400  # midpoints: exact for linear rates
        actual = _rate_at(at, rates)
        wanted = _rate_at(np.array([first]), rates)[0] * (last - at) / (last - first)
        total = actual.sum()
        kept.append(float(np.minimum(wanted, actual).sum() / total) if total > 0 else 0.0)
    # rounding, and rates that rise again, must not make a weight negative
    shares = np.minimum.accumulate(np.array(kept))
    return [float(1 - shares[0]), *(float(a - b) for a, b in zip(shares, [*shares[1:], 0.0], strict=True))]


def _rate_at(steps: NDArray[np.float64], rates: Sequence[Rate]) -> NDArray[np.float64]:
    if not rates:
        return np.ones(len(steps))
    return np.interp(steps, [rate.step for rate in rates], [rate.value for rate in rates])
