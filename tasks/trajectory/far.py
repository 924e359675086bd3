"""Checkpoints that lie far from the others: one that has diverged is found before it is merged."""

import math
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

import numpy as np

from tasks.base.records.selection import FarCheckpoint
from tasks.merging.distances import PairMatrix, remoteness
from tasks.trajectory.sampled_distances import Spread, sampled_spread

MODEL, TENSOR = 2.0, 2.5
"""Remoteness beyond which a checkpoint is far: of the whole model, and of a tensor, where chance does more.

Measured (docs/trajectory.md): healthy ones up to 1.4 and 1.7, the oldest of five after a decay 1.8, one that
has diverged 3.3 and more.
"""
JUMP = 2.0
"""The oldest of a falling rate lie far along the way, but each step is at most so many times the next; one
that has diverged is off it by four steps and more."""
FEWEST = 3
"""Of two nobody can tell which lies far."""
MATTERS = 0.1
"""Of a tensor's norm: what moves less cannot spoil a merge."""


def find_far(checkpoints: Sequence[tuple[int, Path]]) -> list[FarCheckpoint]:
    """Return the checkpoints, by step, that lie far from the others; of three or more, never the majority.

    Empty where they cannot be compared: their merge says why.
    """
    if len(checkpoints) < FEWEST:
        return []
    spread = sampled_spread([directory for _, directory in checkpoints])
    return far_of([step for step, _ in checkpoints], spread) if spread else []


def far_of(steps: Sequence[int], spread: Spread) -> list[FarCheckpoint]:
    """Apply the rule to distances: over the whole model, then in single tensors, the first that shows it.

    Where tensors show the majority to be far, the farthest minority is.
    """
    found: dict[int, tuple[float, str | None]] = {
        i: (times, None) for i, times in _beside(spread.model, MODEL).items()
    }
    for name, between in spread.tensors.items():
        for i, times in _beside(between, TENSOR).items():
            away = sorted(between[i])[len(between) // 2]
            if i not in found and away > MATTERS * spread.norms[name]:
                found[i] = times, name
    farthest = sorted(found, key=lambda i: -found[i][0])[: (len(steps) - 1) // 2]
    return [_record(steps[i], *found[i]) for i in sorted(farthest)]


def _beside(between: PairMatrix, limit: float) -> dict[int, float]:
    """Return the remoteness of those beyond the limit, without the oldest that lie on the run's own way."""
    times, steps = remoteness(between), np.diag(between, 1)

    def on_the_way(i: int) -> bool:
        return times[i] > limit and bool(steps[i] <= JUMP * steps[i + 1])

    oldest = set(takewhile(on_the_way, range(len(steps) - 1)))
    return {i: own for i, own in enumerate(times) if own > limit and i not in oldest}


def _record(step: int, times: float, tensor: str | None) -> FarCheckpoint:
    return FarCheckpoint(step=step, times=round(times, 2) if math.isfinite(times) else None, tensor=tensor)
