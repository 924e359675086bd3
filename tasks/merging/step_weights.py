"""Weights by training step: ema with a half-life, power_ema, wsm, trend, planned."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tasks.base.errors import BadInput
from tasks.base.measures import WeightsUsed
from tasks.merging.block import Block
from tasks.merging.compose import Weighed, Weighing
from tasks.merging.program import Rates, Settings
from tasks.parameters.merge import MergeParams, TrendParams

Profile = Literal["linear", "cosine", "1-sqrt"]
PROFILES: dict[Profile, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "linear": lambda x: 1 - x,
    "cosine": lambda x: (1 + np.cos(np.pi * x)) / 2,
    "1-sqrt": lambda x: 1 - np.sqrt(x),
}
"""What is left of the learning rate at a share x of its decay."""
POINTS = 200
"""Midpoints at which the rate is taken between two checkpoints: exact for linear rates and profiles."""


def power_ema(settings: Settings) -> Weighing:
    """∝ the share of ∫ t^γ dt that lies between a checkpoint and the one before (Karras et al. 2024)."""
    return (yield from _by_step(settings, lambda params, steps: power_weights(steps, params.power_ema.width)))


def trend(settings: Settings) -> Weighing:
    """Move the mean by κ towards the end of the line that fits the checkpoints."""
    return (yield from _by_step(settings, lambda params, steps: trend_weights(steps, params.trend.kappa)))


def wsm(settings: Settings) -> Weighing:
    """Weigh by what is left of a decay of the learning rate (Tian et al. 2025, arXiv 2507.17634)."""
    found = decay_weights(settings.steps, settings.rates, settings.params.wsm.profile)
    return (yield from _by_step(settings, lambda params, steps: found))


def planned(settings: Settings) -> Weighing:
    """Weigh as `trend` does, less what the learning rate has already decayed; equally without steps."""
    found = planned_weights(settings.steps, settings.rates)
    return (yield from _by_step(settings, lambda params, steps: found))


def _by_step(settings: Settings, rule: Callable[[MergeParams, Sequence[int]], Sequence[float]]) -> Weighing:

    def weigh(block: Block) -> Weighed:
        c = rule(settings.at(block.tensor), settings.steps)
        return Weighed(c, WeightsUsed(weights=tuple(c)))

    return weigh
    yield  # makes this a generator


def check_steps(settings: Settings) -> None:
    """Raise BadInput where the steps do not rise from one checkpoint to the next."""
    if not rising(settings.steps):
        raise BadInput(
            "merge.method",
            f"{settings.params.method} weighs by training step, and steps {list(settings.steps)} do not rise",
            "name directories that end in their step (checkpoint-100), oldest first",
        )


def rising(steps: Sequence[int]) -> bool:
    """Tell whether each checkpoint's step is later than the one's before."""
    return all(earlier < later for earlier, later in pairwise(steps))


def wsm_notes(settings: Settings) -> list[str]:
    """Say whether the learning rate was known, and whether anything was left of its decay."""
    return _rate_notes(settings, decay_weights(settings.steps, settings.rates, settings.params.wsm.profile))


def planned_notes(settings: Settings) -> list[str]:
    """Say the same of the planned weights, or that the steps are not known."""
    if not rising(sorted(settings.steps)):
        return ["the checkpoints' names hold no steps of one run: all weigh the same"]
    return _rate_notes(settings, planned_weights(settings.steps, settings.rates))


def _rate_notes(settings: Settings, weights: Sequence[float]) -> list[str]:
    if not settings.rates:
        return ["the log holds no learning rate: it counts as constant"]
    if max(weights) > 0.99:
        return ["equal to the last checkpoint: its learning rate has decayed, and nothing is left to do"]
    return []


def half_life_weights(steps: Sequence[int], half_life: float) -> list[float]:
    """Return c_i ∝ ∫ 2^((s − t_N)/h) ds over the steps since the checkpoint before; evenly spaced: by age."""
    edges = [2 * steps[0] - steps[1], *steps] if len(steps) > 1 else [steps[0] - 1, *steps]
    rate = math.log(2) / half_life
    raw = [
        -math.exp(rate * (end - steps[-1])) * math.expm1(-rate * (end - begin))
        for begin, end in pairwise(edges)
    ]
    return [weight / sum(raw) for weight in raw]


def power_weights(steps: Sequence[int], width: float) -> list[float]:
    """Return c_i = (t_i^(γ+1) − t_{i−1}^(γ+1)) / (t_N^(γ+1) − t_0^(γ+1)), γ from the profile's width.

    t_0 lies as far before the first checkpoint as the second after it, but not before step 0.
    """
    edges = [max(0, 2 * steps[0] - steps[1]), *steps]
    powers = [(edge / steps[-1]) ** (gamma_of(width) + 1) for edge in edges]
    return [(end - begin) / (powers[-1] - powers[0]) for begin, end in pairwise(powers)]


def gamma_of(width: float) -> float:
    """Return γ of the profile t^γ with this standard deviation, as a share of training; 12^−½ gives 0.

    It is the largest root of γ³ + 7γ² + (16 − σ⁻²)γ + 12 − σ⁻² (Karras et al. 2024, arXiv 2312.02696).
    """
    inverse = width**-2
    roots = np.roots([1.0, 7.0, 16.0 - inverse, 12.0 - inverse])
    return float(max(root.real for root in roots if abs(root.imag) < 1e-6 * max(1.0, abs(root))))


def trend_weights(steps: Sequence[int], kappa: float) -> list[float]:
    """Return c_i = 1/N + κ(t_N − t̄)(t_i − t̄)/Σ(t_j − t̄)²: κ = 0 is the mean, 1 the end of the fitted line."""
    mean = sum(steps) / len(steps)
    squares = sum((step - mean) ** 2 for step in steps)
    end = max(steps) - mean
    return [1 / len(steps) + kappa * end * (step - mean) / squares for step in steps]


def decay_weights(steps: Sequence[int], rates: Rates, profile: Profile = "linear") -> list[float]:
    """Return weights that leave each increment between checkpoints the share that a decay to 0 would.

    At a constant rate a linear decay gives nearly the plain average; after a decay all weight is on the last.
    Without rates the rate counts as constant (after Tian et al. 2025).
    """
    return _less_decayed(steps, rates, lambda at: PROFILES[profile]((at - steps[0]) / (steps[-1] - steps[0])))


def planned_weights(steps: Sequence[int], rates: Rates) -> list[float]:
    """Return the weights of `trend` by its default κ, less what the learning rate has already decayed.

    At a constant or unknown rate they are those of `trend`, but none is negative; after a decay all weight is
    on the last. In whatever order they are named; where the steps are not known, all are equal.
    """
    ordered = sorted(steps)
    if len(steps) == 1 or not rising(ordered):
        return [1 / len(steps)] * len(steps)
    kept = 1 - np.cumsum(
        trend_weights(ordered, TrendParams().kappa)
    )  # of the increment after each checkpoint
    found = _less_decayed(ordered, rates, lambda at: kept[np.searchsorted(ordered, at, side="right") - 1])
    return [found[ordered.index(step)] for step in steps]


def _less_decayed(
    steps: Sequence[int], rates: Rates, profile: Callable[[NDArray[np.float64]], NDArray[np.float64]]
) -> list[float]:
    """Return c_0 = 1 − w_1, c_j = w_j − w_{j+1}, c_k = w_k, where segment i's increment keeps w_i.

    w_i = Σ min(η*, η)/Σ η over the segment, η* the wanted rate: η(t_0) times the profile at a step.
    """
    if len(steps) == 1:
        return [1.0]
    kept, first = [], _rate_at(np.array([steps[0]]), rates)[0]
    for begin, end in pairwise(steps):
        at = begin + (end - begin) * (np.arange(POINTS) + 0.5) / POINTS
        actual = _rate_at(at, rates)
        total = actual.sum()
        kept.append(float(np.minimum(first * profile(at), actual).sum() / total) if total > 0 else 0.0)
    # rounding, and rates that rise again, must not make a weight negative
    shares = np.minimum.accumulate(np.array(kept))
    return [float(1 - shares[0]), *(float(a - b) for a, b in zip(shares, [*shares[1:], 0.0], strict=True))]


def _rate_at(steps: NDArray[np.float64], rates: Rates) -> NDArray[np.float64]:
    if not rates:
        return np.ones(len(steps))
    return np.interp(steps, [step for step, _ in rates], [value for _, value in rates])
