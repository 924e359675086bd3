"""Drift: the mean, moved along the line that fits the checkpoints, as far as their scatter about it allows.

Over their steps the fitted line runs from the mean to the newest step by d = (t_N − t̄)·slope.
Of its energy ‖d‖² chance alone gives E = R/(N − 2) · (t_N − t̄)²/Σ(t_i − t̄)², R the sum of squares that the
line leaves. What is left of d is shrunk by one number for each tensor, κ = max(0, 1 − E/‖d‖²) (James and
Stein 1961): θ* = mean + κ·d. That is κ = 1 − 1/F, F the statistic by which a regression is tested: the noise
of a constant rate about a point gives 0, the mean; a run that still moves, or comes to rest, nearly 1, the
end of the line.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from tasks.base.measures import TensorMeasures, WeightsUsed
from tasks.merging.block import Block
from tasks.merging.compose import Weighed, Weighing
from tasks.merging.distances import PairMatrix
from tasks.merging.inner_products import gram
from tasks.merging.program import Settings
from tasks.merging.step_weights import trend_weights

LEAST_FOR_A_LINE = 3
"""Checkpoints from which on there is scatter about a line."""


def drift(settings: Settings) -> Weighing:
    """Weigh as `trend` does, κ measured on each tensor; equally where no line can be fitted."""
    found: dict[str, float] = {}
    if fits_line(settings.steps):
        results = yield lambda block: gram([theta - block.mean for theta in block.thetas])
        found = {
            tensor: shrinkage(settings.steps, np.sum(parts, axis=0)) for tensor, parts in results.items()
        }

    def weigh(block: Block) -> Weighed:
        kappa = found.get(block.tensor, 0.0)
        if not kappa:  # to the last bit what `average` gives
            even = (1 / settings.count,) * settings.count
            return Weighed([1.0] * settings.count, WeightsUsed(weights=even))
        c = trend_weights(settings.steps, kappa)
        return Weighed(c, WeightsUsed(weights=tuple(c)))

    return weigh


def fits_line(steps: Sequence[int]) -> bool:
    """Tell whether a line can be fitted, and the scatter about it known; their order does not matter."""
    return len(set(steps)) == len(steps) >= LEAST_FOR_A_LINE


def shrinkage(steps: Sequence[int], products: PairMatrix) -> float:
    """Return κ from the inner products of the checkpoints' deviations from their mean, N × N."""
    away = np.asarray(steps, dtype=np.float64)
    away -= away.mean()
    explained = float(away @ products @ away / (away @ away))
    left = max(float(np.trace(products)) - explained, 0.0)
    return max(0.0, 1 - left / (len(steps) - 2) / explained) if explained > 0 else 0.0


def drift_notes(settings: Settings) -> list[str]:
    """Say where no line is fitted."""
    if fits_line(settings.steps):
        return []
    if settings.count < LEAST_FOR_A_LINE:
        return ["two checkpoints show no scatter about a line: both weigh the same"]
    return ["the checkpoints' names hold no steps of one run: all weigh the same"]


def drift_findings(settings: Settings, tensors: Mapping[str, TensorMeasures]) -> list[str]:
    """Say how far the tensors were moved, as κ."""
    if not fits_line(settings.steps):
        return []
    newest, even = int(np.argmax(settings.steps)), 1 / settings.count
    used = [own.method.weights[newest] for own in tensors.values() if isinstance(own.method, WeightsUsed)]
    if not used:
        return []
    end = trend_weights(settings.steps, 1.0)[newest] - even
    low, middle, high = (np.quantile(used, [0, 0.5, 1]) - even) / end
    return [
        f"the mean was moved along the fitted line by {low:.0%} to {high:.0%} of the way to its end, half of "
        f"the tensors by more than {middle:.0%}: the rest of the drift is what scatter alone would give"
    ]
