"""AdaMerging: θ_0 + Σ λ_i δ_i, with coefficients of every tensor that were learned on text.

They start at 1/N, the plain average: what is learned is what the text says beyond it. (The paper's 0.3 is for
task vectors of different tasks, whose sum it takes; those of one run nearly repeat each other.)
"""

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tasks.base.errors import BadInput
from tasks.base.measures import TensorMeasures, WeightsUsed
from tasks.merging.block import Block
from tasks.merging.compose import Weighed, Weighing
from tasks.merging.program import Settings
from tasks.parameters.merge import MergeParams

Lambdas: TypeAlias = NDArray[np.float64]
"""Tensors × checkpoints."""
MOMENTS, EPSILON = (0.9, 0.999), 1e-8
"""Of Adam, as in the paper."""


class Descent(NamedTuple):
    """Where Adam stands after some steps (Kingma and Ba 2015, arXiv 1412.6980)."""

    step: int
    values: Lambdas
    mean: Lambdas
    """Of the slopes, the older ones decaying; not yet divided by what the weights add up to."""
    square: Lambdas
    """Of their squares, likewise."""


def evenly(tensors: int, count: int) -> Descent:
    """Return where learning starts: the plain average of `count` checkpoints."""
    nothing = np.zeros((tensors, count))
    return Descent(0, np.full_like(nothing, 1 / count), nothing, nothing)


def descended(at: Descent, slopes: Lambdas, rate: float) -> Descent:
    """Take one step down the slopes; coefficients stay between 0 and 1, as in the paper's code."""
    step, (first, second) = at.step + 1, MOMENTS
    mean = first * at.mean + (1 - first) * slopes
    square = second * at.square + (1 - second) * slopes**2
    change = mean / (1 - first**step) / (np.sqrt(square / (1 - second**step)) + EPSILON)
    return Descent(step, (at.values - rate * change).clip(0, 1), mean, square)


def learned(settings: Settings) -> Weighing:
    """λ_i as learned on text (Yang et al. 2024, arXiv 2310.02575)."""

    def weigh(block: Block) -> Weighed:
        c = settings.coefficients[block.tensor]
        return Weighed(c, WeightsUsed(weights=tuple(c)))

    return weigh
    yield  # makes this a generator


def adamerging_findings(settings: Settings, tensors: Mapping[str, TensorMeasures]) -> list[str]:
    """Say how far the coefficients are from an average's, which add up to 1: more extrapolates."""
    used = [own.method.weights for own in tensors.values() if isinstance(own.method, WeightsUsed)]
    if not used:
        return []
    sums = [sum(weights) for weights in used]
    return [
        f"the coefficients are {min(map(min, used)):.3g} to {max(map(max, used)):.3g}, and add up to "
        f"{min(sums):.3g} to {max(sums):.3g} over the tensors; those of the plain average are "
        f"{1 / settings.count:.3g} and add up to 1"
    ]


def check_no_factors(params: MergeParams) -> None:
    """Raise BadInput: coefficients are learned on whole models."""
    raise BadInput(
        "merge.method",
        f"{params.method} learns on whole models, and these are adapters",
        "set merge.full, or take another method",
    )
