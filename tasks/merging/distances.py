"""Distances between the checkpoints of a run: what they say of its course, and which checkpoint lies far."""

from typing import Any, NamedTuple, TypeAlias

import numpy as np

PairMatrix: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
"""N × N, a number for each pair of checkpoints."""


class Course(NamedTuple):
    """How a run moved from checkpoint to checkpoint."""

    drift: float
    """‖θ_N − θ_1‖² / Σ‖θ_{i+1} − θ_i‖²: N − 1 straight on, about 1 a random walk, less about one point."""
    last_step: float
    """The last step's length over the median of all: far below 1 where the learning rate has decayed."""


def distances(products: PairMatrix) -> PairMatrix:
    """Return ‖θ_i − θ_j‖, N × N, from the inner products of their deviations from any one point."""
    squares = np.diag(products)
    between: PairMatrix = np.sqrt(np.maximum(squares[:, None] + squares - 2 * products, 0.0))
    return between


def course(between: PairMatrix) -> Course | None:
    """Return drift and last step; None where there are not two steps, or nothing moved."""
    steps = np.diag(between, 1)
    if len(steps) < 2 or not steps.any():
        return None
    usual = float(np.median(steps))
    return Course(
        float(between[0, -1] ** 2 / (steps**2).sum()), float(steps[-1]) / usual if usual else np.inf
    )


def remoteness(between: PairMatrix) -> list[float]:
    """Return each checkpoint's median distance to the others, in units of the median of these.

    About 1 for all where none stands out; the minority that lies far does not move the unit. 1 for two.
    """
    count = len(between)
    if count < 3:
        return [1.0] * count
    others = np.sort(between, axis=1)[:, 1:]  # without its distance to itself
    # of two others the nearer: their median would be moved by the one that lies far
    own = np.median(others, axis=1) if count > 3 else others[:, 0]
    unit = float(np.median(own))
    return [1.0 if value == unit else float(value / unit) if unit else np.inf for value in own]
