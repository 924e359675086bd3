"""Merging adapters on their base: the changes by their factors, then base + merged change, block by block."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

from tasks.base.measures import Averaged, FactorMeasures, MethodMeasures, TensorMeasures
from tasks.checkpoints.numbers import Numbers
from tasks.engine.plan import Plan
from tasks.merging.arrays import Array
from tasks.merging.deviation import deviation
from tasks.merging.deviation_sums import describe
from tasks.merging.low_rank import Span, abreast, core_block, factored, rank_rounding, span
from tasks.merging.program import FamilyFinish, Settings, run_program


class MergedChange(NamedTuple):
    """What a merge adds to one tensor of the base."""

    factors: tuple[Numbers, Numbers] | None
    """rows × r and r × columns, in the dtype that the base is read in; None where no adapter changes it."""
    measures: TensorMeasures


Changing: TypeAlias = Callable[[str], list[MergedChange]]
"""Merges the changes of one of some tensors, once for each variant."""


def merge_changes(plan: Plan, names: Sequence[str], variants: Sequence[Settings]) -> Changing:
    """Measure the changes of some tensors within the spans of their factors; return what merges each."""
    inputs = {name: plan.changes[name] for name in names}
    spans = {
        name: span(abreast([source.product(name) for source in own]))
        for name, own in inputs.items()
        if any(source.rank(name) for source in own)
    }
    program = plan.method.run_on_cores(variants)
    finish = run_program(program, list(spans), lambda name: core_block(name, spans[name]))

    def changes(name: str) -> list[MergedChange]:
        if name not in spans:
            return [_untouched(len(inputs[name]))] * len(variants)
        return list(_changes(plan, name, spans[name], finish))

    return changes


def _changes(plan: Plan, name: str, joint: Span, finish: FamilyFinish) -> Iterator[MergedChange]:
    known = describe(deviation(core_block(name, joint)))
    rounding = rank_rounding(plan.spec[name].dtype)
    for core, found in finish(core_block(name, joint)):
        left, right = (half.astype(plan.dtype(name)) for half in factored(joint, core, rounding))
        yield MergedChange((left, right), _measures(len(right), known.norms, known.cosines, found))


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
