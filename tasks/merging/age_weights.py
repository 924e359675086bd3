"""Weights by a checkpoint's age, counted in checkpoints from the newest: ema, wma, lawa."""

from collections.abc import Callable, Sequence

from tasks.base.measures import WeightsUsed
from tasks.merging.block import Block
from tasks.merging.compose import Weighed, Weighing
from tasks.merging.program import Settings
from tasks.merging.step_weights import check_steps, half_life_weights
from tasks.parameters.merge import MergeParams


def ema(settings: Settings) -> Weighing:
    """∝ decay^age, the newest having age 0 (Polyak and Juditsky 1992); with a half-life, by training step."""

    def faded(params: MergeParams, ages: Sequence[int]) -> list[float]:
        if params.ema.half_life is None:
            return [params.ema.decay**age for age in ages]
        return half_life_weights(settings.steps, params.ema.half_life)

    return (yield from _by_age(settings, faded))


def check_ema(settings: Settings) -> None:
    """Raise BadInput where a half-life is given and the steps do not rise."""
    if settings.params.ema.half_life is not None:
        check_steps(settings)


def wma(settings: Settings) -> Weighing:
    """∝ 1, 2, …, N, the newest weighing most (Li et al. 2025, arXiv 2505.12082)."""
    return (yield from _by_age(settings, lambda params, ages: [float(len(ages) - age) for age in ages]))


def lawa(settings: Settings) -> Weighing:
    """Equal for every `spacing`-th checkpoint back from the newest, at most k of them; 0 for the others.

    Kaddour 2022, arXiv 2209.14981.
    """

    def taken(params: MergeParams, ages: Sequence[int]) -> list[float]:
        k, spacing = params.lawa.k, params.lawa.spacing
        return [float(age % spacing == 0 and age // spacing < k) for age in ages]

    return (yield from _by_age(settings, taken))


def _by_age(settings: Settings, rule: Callable[[MergeParams, Sequence[int]], list[float]]) -> Weighing:
    """Weigh by age; the combination divides by the sum, which keeps averages of equal numbers exact."""
    ages = list(reversed(range(settings.count)))

    def weigh(block: Block) -> Weighed:
        c = rule(settings.at(block.tensor), ages)
        return Weighed(c, WeightsUsed(weights=tuple(weight / sum(c) for weight in c)))

    return weigh
    yield  # makes this a generator
