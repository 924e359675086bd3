"""Merging adapters on their base: the changes by their factors, then base + merged change, block by block."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tasks.base.measures import Averaged, FactorMeasures, MethodMeasures, TensorMeasures
from tasks.checkpoints.numbers import Numbers
from tasks.engine.plan import Plan
from tasks.merging.arrays import Array
from tasks.merging.deviation import deviation
from tasks.merging.deviation_sums import describe
from tasks.merging.low_rank import abreast, core_block, factored, rank_rounding, span
from tasks.merging.program import Settings, run_program


class MergedChange(NamedTuple):
    """What a merge adds to one tensor of the base."""

    factors: tuple[Numbers, Numbers] | None
    """rows × r and r × columns, in the dtype that the base is read in; None where no adapter changes it."""
    measures: TensorMeasures


def merge_changes(plan: Plan, name: str, variants: Sequence[Settings]) -> list[MergedChange]:
    """Merge the changes of one tensor within the span of their factors, once for each variant."""
    inputs = plan.changes[name]
    if not any(source.rank(name) for source in inputs):
        return [_untouched(len(inputs))] * len(variants)
    joint = span(abreast([source.product(name) for source in inputs]))
    block = core_block(name, joint)
    finish = run_program(plan.method.run_on_cores(variants), [name], lambda tensor: block)
    known, rounding = describe(deviation(block)), rank_rounding(plan.spec[name].dtype)
    changes = []
    for core, found in finish(core_block(name, joint)):
        left, right = (half.astype(plan.dtype(name)) for half in factored(joint, core, rounding))
        changes.append(MergedChange((left, right), _measures(len(right), known.norms, known.cosines, found)))
    return changes


def add_changes(base: Array, changes: Sequence[MergedChange], first: int) -> Iterator[Array]:
    """Yield base + change for some rows of a tensor, from its row `first` on, one variant after the other."""
    for factors, _ in changes:
        if factors is None:
            yield base
        else:
            left, right = factors
            yield left[first : first + len(base)] @ right + base


def _untouched(count: int) -> MergedChange:
    nothing, pairs = (0.0,) * count, (0.0,) * (count * (count - 1) // 2)
    return MergedChange(None, _measures(0, nothing, pairs, Averaged(identical=True)))


def _measures(
    rank: int, norms: tuple[float, ...], cosines: tuple[float, ...], found: MethodMeasures | None
) -> TensorMeasures:
    return TensorMeasures(factors=FactorMeasures(rank=rank, norms=norms, cosines=cosines), method=found)
