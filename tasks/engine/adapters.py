"""Merging LoRA adapters into one adapter, within the span of their factors: plan and computation."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np

from tasks.base.errors import BadInput
from tasks.base.measures import FactorMeasures, TensorMeasures
from tasks.base.threads import compute_alone
from tasks.checkpoints.numbers import Numbers, all_finite, encode
from tasks.checkpoints.peft.adapter import Adapter
from tasks.checkpoints.weights import NotFinite
from tasks.engine.devices import cores
from tasks.engine.leaving import leave
from tasks.engine.plan import AT_ONCE, Plan, written_dtype
from tasks.engine.progress import TELL_EVERY_S
from tasks.engine.shards import Stored
from tasks.merging.deviation import deviation
from tasks.merging.deviation_sums import describe
from tasks.merging.low_rank import Products, Span, core_block, factored, rank_rounding, slices_of, span
from tasks.merging.program import FamilyFinish, Settings, run_program
from tasks.parameters.merge import MergeParams


@dataclass(frozen=True)
class AdapterPlan(Plan):
    """A merge of adapters that is an adapter again; its spec has the largest ranks that can come out."""

    inputs: Sequence[Adapter]
    dtypes: Mapping[str, str]
    """Of the merged factors, by the tensor that they change."""

    def products(self, tensor: str) -> Products:
        """Return every adapter's factors of one tensor's change; those that leave it alone have rank 0."""
        (rows, columns), ranks = self.shapes[tensor], self.ranks(tensor)
        B, A = np.empty((rows, sum(ranks))), np.empty((sum(ranks), columns))
        for adapter, part in zip(self.inputs, slices_of(ranks), strict=True):
            if tensor in adapter.factors:
                adapter.put_product(tensor, B[:, part], A[part])
            if not (np.isfinite(B[:, part]).all() and np.isfinite(A[part]).all()):
                raise NotFinite(adapter.label, tensor)
        return Products(B, A, ranks)

    @cached_property
    def spanned(self) -> frozenset[str]:
        """All: there is nothing else."""
        return frozenset(self.shapes)

    def ranks(self, name: str) -> list[int]:
        """Return the rank of every adapter's change of a tensor; 0 where it leaves it alone."""
        return [adapter.factors[name].rank if name in adapter.factors else 0 for adapter in self.inputs]

    def _held_by(self, group: Sequence[str]) -> int:
        return (sum if self.together else max)(map(self._held_factors, group))


class MergedFactors(NamedTuple):
    """One tensor's merged change."""

    B: Numbers
    """out × r, as it is stored."""
    A: Numbers
    """r × in, as it is stored."""
    measures: TensorMeasures


def adapter_spec(
    adapters: Sequence[Adapter], dtypes: Mapping[str, str], params: MergeParams
) -> dict[str, Stored]:
    """Return what is written: factors of the largest ranks that can come out, and whole tensors.

    `dtypes`: of the factors, by the tensor that they change.
    """
    spec = dict[str, Stored]()
    for name, (rows, columns) in changed_shapes(adapters).items():
        rank = min(rows, columns, sum(a.factors[name].rank for a in adapters if name in a.factors))
        rank = min(rank, params.adapter_rank or rank)
        A, B = factor_names(name, adapters)
        spec |= {A: Stored(dtypes[name], (rank, columns)), B: Stored(dtypes[name], (rows, rank))}
    for key in adapters[-1].replaced.values():
        dtype = written_dtype({adapter.tensors[key].dtype for adapter in adapters}, params)
        spec[key] = Stored(dtype, adapters[-1].tensors[key].shape)
    return dict(sorted(spec.items()))


def changed_shapes(adapters: Sequence[Adapter]) -> dict[str, tuple[int, int]]:
    """Return the tensors that adapters change by factors, out × in, in order."""
    shapes = {name: found.shape for adapter in adapters for name, found in adapter.factors.items()}
    return dict(sorted(shapes.items()))


def factor_names(tensor: str, adapters: Sequence[Adapter]) -> tuple[str, str]:
    """Return the names in the file of the factors A and B of one tensor's change."""
    found = next(adapter.factors[tensor] for adapter in adapters if tensor in adapter.factors)
    return found.A, found.B


def merge_factors(
    plan: AdapterPlan, settings: Settings, tell: Callable[[Sequence[str]], None]
) -> dict[str, MergedFactors]:
    """Merge the changes of all tensors within the spans of their factors, on every core.

    `tell` is called with the names of those that are done, and with none while the next take their time.
    """
    merged: dict[str, MergedFactors] = {}
    with ExitStack() as stack:
        pool = ThreadPoolExecutor(cores(), initializer=compute_alone if plan.method.whole else None)
        stack.push(lambda kind, error, trace: leave(pool, error))
        stack.enter_context(settings.solving)
        for running in [pool.submit(merge_group, plan, settings, names) for names in plan.groups]:
            while not wait([running], TELL_EVERY_S).done:
                tell([])
            merged |= (found := running.result())
            for name in found:
                tell([name])
    return merged


def merge_group(plan: AdapterPlan, settings: Settings, names: Sequence[str]) -> dict[str, MergedFactors]:
    """Merge the changes of tensors that are merged together."""
    own = replace(settings, shapes={name: plan.shapes[name] for name in names})
    # measuring and merging need the same span
    spans = lru_cache(AT_ONCE if plan.together else 2)(lambda name: span(plan.products(name)))
    program = plan.method.run_on_cores([own])
    finish = run_program(program, names, lambda name: core_block(name, spans(name)))
    at_most = settings.params.adapter_rank
    return {name: _merged(name, spans(name), finish, plan.dtypes[name], at_most) for name in names}


def _merged(
    tensor: str, within: Span, finish: FamilyFinish, dtype: str, at_most: int | None
) -> MergedFactors:
    block = core_block(tensor, within)
    [(core, found)] = finish(block)
    B, A = factored(within, core, rank_rounding(dtype), at_most)
    known = describe(deviation(block))
    stored = [encode(half.reshape(-1), dtype) for half in (B, A)]
    if not all(all_finite(half, dtype) for half in stored):
        raise BadInput(f"tensor {tensor}", f"the merge overflows {dtype}", "choose a wider merge.dtype")
    factors = FactorMeasures(
        rank=A.shape[0],
        norms=known.norms,
        cosines=known.cosines,
        lost_energy=_lost_energy(core, B) if at_most else None,
    )
    measures = TensorMeasures(factors=factors, method=found)
    return MergedFactors(stored[0].reshape(B.shape), stored[1].reshape(A.shape), measures)


def _lost_energy(core: Numbers, B: Numbers) -> float:
    """Return which share of ‖ΔW‖² a truncation left out; the columns of B have the norms √σ_i."""
    whole, kept = float((core**2).sum()), float(((B**2).sum(axis=0) ** 2).sum())
    return max(0.0, 1 - kept / whole) if whole else 0.0


def truncation_notes(tensors: Mapping[str, TensorMeasures], rank: int | None) -> list[str]:
    """Say what share of the merged matrices' energy ‖ΔW‖² a bound on the rank left out."""
    lost = {name: own.factors.lost_energy for name, own in tensors.items() if own.factors}
    shares = {name: share for name, share in lost.items() if share is not None}
    if not shares:
        return []
    most, mean = max(shares, key=lambda name: shares[name]), sum(shares.values()) / len(shares)
    return [
        f"rank {rank} leaves out {mean:.2%} of a matrix's energy ‖ΔW‖² on average, "
        f"most of {most}: {shares[most]:.2%}"
    ]


def factor_dtypes(tensor: str, adapters: Sequence[Adapter]) -> set[str]:
    """Return the dtypes in which adapters store the factors of one tensor's change."""
    own = [(adapter, adapter.factors[tensor]) for adapter in adapters if tensor in adapter.factors]
    return {adapter.tensors[key].dtype for adapter, found in own for key in (found.A, found.B)}


def check_alike(adapters: Sequence[Adapter]) -> None:
    """Raise BadInput unless all adapters change one model in one way; they may change different layers."""
    newest = adapters[-1]
    if dora := [adapter.label for adapter in adapters if adapter.is_dora]:
        raise BadInput(
            dora[0],
            "is DoRA, which gives whole weights norms that do not add up between adapters",
            "set merge.full to true, to merge on the base",
        )
    for other in adapters[:-1]:
        if other.config.fan_in_fan_out != newest.config.fan_in_fan_out:
            raise BadInput(
                newest.label,
                f"fan_in_fan_out differs from that of {other.label}",
                "adapters of one merge must share one base",
            )
        if missing := other.replaced.keys() ^ newest.replaced.keys():
            lacker = other if min(missing) in newest.replaced else newest
            raise BadInput(
                lacker.label,
                f"tensor {min(missing)} is missing, but others replace it whole",
                "give merge.base to merge these adapters into full models",
            )
        for name in other.factors.keys() & newest.factors.keys():
            _check_same(name, other, newest, other.factors[name].shape, newest.factors[name].shape)
        for name, key in newest.replaced.items():
            _check_same(name, other, newest, other.tensors[key].shape, newest.tensors[key].shape)


def _check_same(
    name: str, other: Adapter, newest: Adapter, left: tuple[int, ...], right: tuple[int, ...]
) -> None:
    if left != right:
        raise BadInput(
            newest.label,
            f"{name} is {right}, but {left} in {other.label}",
            "adapters of one merge must share one base",
        )
