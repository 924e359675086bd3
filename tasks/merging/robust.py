"""Robust middles of the checkpoints: median and trimmed mean by element, geometric median of whole models."""

from collections.abc import Sequence

import numpy as np

from tasks.base.measures import WeightsUsed
from tasks.merging.arrays import Array, ascending
from tasks.merging.block import Block
from tasks.merging.compose import Weighed, Weighing
from tasks.merging.distances import PairMatrix, distances
from tasks.merging.inner_products import gram
from tasks.merging.program import Merged, Program, Settings, without_measuring

ROUNDS, STEADY = 10_000, 1e-12
"""Weiszfeld's iterations at most, and the change of the weights at which they end."""
TIE = 1e-9
"""Pull at which a checkpoint is the median at the margin only: then others are as good."""


def median(settings: Settings) -> Program:
    """Take the middle value, the mean of the two middle ones for an even number (Yin et al. 2018)."""
    return without_measuring(lambda block: _middle(block.thetas, (settings.count - 1) // 2))


def trimmed_mean(settings: Settings) -> Program:
    """Average without the smallest and largest share of the values (Yin et al. 2018)."""
    # a share as 0.29 of 100 is 28.999… in floating point
    trimmed = int(settings.params.trimmed_mean.share * settings.count + 1e-9)
    return without_measuring(lambda block: _middle(block.thetas, trimmed))


def geometric_median(settings: Settings) -> Weighing:
    """Weigh for the whole model that minimises Σ‖θ − θ_i‖ (Weiszfeld 1937)."""
    results = yield lambda block: gram([theta - block.mean for theta in block.thetas])
    weights = weiszfeld(distances(np.sum([part for parts in results.values() for part in parts], axis=0)))

    def weigh(block: Block) -> Weighed:
        return Weighed(weights, WeightsUsed(weights=tuple(weights)))

    return weigh


def weiszfeld(between: PairMatrix) -> list[float]:
    """Return the weights that give the geometric median of points with these distances.

    A point that is the median itself gets all the weight (the test is Vardi and Zhang's, 2000); elsewhere
    w_i ∝ 1/‖θ − θ_i‖ is iterated from the mean. Of many solutions it is one near the mean.
    """
    count = len(between)
    for i in range(count):
        if _pull(between, i) < np.count_nonzero(between[i] == 0) - TIE:
            return [float(j == i) for j in range(count)]
    squares, weights = between**2, np.full(count, 1 / count)
    for _ in range(ROUNDS):
        reach = squares @ weights
        away = np.sqrt(np.maximum(reach - reach @ weights / 2, 0.0))  # ‖Σw_jθ_j − θ_i‖
        new = 1 / np.maximum(away, 1e-12 * away.max())
        new /= new.sum()
        moved, weights = float(np.abs(new - weights).max()), new
        if moved < STEADY:
            break
    return [float(weight) for weight in weights]


def _pull(between: PairMatrix, i: int) -> float:
    """Return ‖Σ_j (θ_j − θ_i)/‖θ_j − θ_i‖‖ over the points that lie elsewhere."""
    others = np.flatnonzero(between[i])
    own, squares = between[i, others], between[np.ix_(others, others)] ** 2
    cosines = (own[:, None] ** 2 + own**2 - squares) / (2 * np.outer(own, own))
    return float(max(cosines.sum(), 0.0) ** 0.5)


def _middle(thetas: Sequence[Array], trimmed: int) -> Merged:
    """Average what is left when so many of the smallest and largest values are gone."""
    first, *others = ascending(thetas)[trimmed : len(thetas) - trimmed]
    return sum(others, first) / (1 + len(others)), None
