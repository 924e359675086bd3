"""A method composed of four choices: anchor, deltas, weights and combination.

θ* = θ_0 + λ · combine(c_i, δ_i).
"""

from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple, TypeAlias

from tasks.base.measures import MethodMeasures
from tasks.merging.arrays import Array
from tasks.merging.block import Block, Weight
from tasks.merging.program import Measure, Merged, Program, Results, Settings
from tasks.parameters.merge import MergeParams


class Weighed(NamedTuple):
    """The weights of the checkpoints on a block, and what the report shows of them."""

    c: Sequence[Weight]
    measures: MethodMeasures | None = None
    scale: float = 1.0
    """Multiplies λ. As a part of c it would be lost where the combination divides by Σc."""


AnchorChoice: TypeAlias = Callable[[Block], Array]
DeltaChoice: TypeAlias = Callable[[Settings], Generator[Measure, Results, Callable[[Block], Sequence[Array]]]]
Weighing: TypeAlias = Generator[Measure, Results, Callable[[Block], Weighed]]
WeightChoice: TypeAlias = Callable[[Settings], Weighing]
CombineChoice: TypeAlias = Callable[[Sequence[Weight], Sequence[Array], MergeParams], Array]


class Row(NamedTuple):
    """The four choices that make a method."""

    anchor: AnchorChoice
    deltas: DeltaChoice
    weights: WeightChoice
    combine: CombineChoice


def compose(row: Row, settings: Settings) -> Program:
    """Turn four choices into a program."""
    deltas = yield from row.deltas(settings)
    weights = yield from row.weights(settings)

    def finish(block: Block) -> Merged:
        params = settings.at(block.tensor)
        weighed = weights(block)
        tau = row.combine(weighed.c, deltas(block), params)
        lam = weighed.scale * (1.0 if params.lam is None else params.lam)
        if lam != 1.0:
            tau = lam * tau
        return row.anchor(block) + tau, weighed.measures

    return finish
