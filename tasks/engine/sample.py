"""Foretelling how long a merge takes, by solving a sample of its matrices."""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import replace
from functools import partial
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np

from tasks.base.threads import one_thread_each
from tasks.engine.adapters import AdapterPlan, merge_group
from tasks.engine.blocks import Blocks
from tasks.engine.crop import Crop, cropped, read_crop, small
from tasks.engine.cut import ADDED, as_stack, cut
from tasks.engine.devices import CPU
from tasks.engine.earliest import Item
from tasks.engine.estimate import TimeEstimate, nominal, work_of, work_on
from tasks.engine.memory import keep_freed_pages
from tasks.engine.plan import Plan
from tasks.engine.spanned import add_changes, merge_changes
from tasks.merging.block import Block
from tasks.merging.program import Settings, run_program
from tasks.merging.solving import Solving

SMALL_S = 15.0
"""Nominal seconds of a merge for which no sample is taken: it is over before that would help."""
SAMPLE_S = 1.0
"""Nominal seconds beyond which a matrix of the sample is cropped, or merged with fewer others."""
EACH = 2
"""Matrices of each shape that are solved, whose spectra differ from layer to layer; and groups of adapters'
tensors on each thread."""
GIVES_UP_S = 6.0
"""Seconds after which what has ended counts."""
WARMS_UP = 32
"""Size of the first matrix, which loads the libraries and does not count."""


def foretell(plan: Plan, devices: Sequence[str]) -> TimeEstimate | None:
    """Estimate a merge that is about to begin: by a sample, unless it is over in the time that this takes."""
    guess = nominal(plan, devices)
    return sampled(plan, devices) if guess and guess.total > SMALL_S else guess


def sampled(plan: Plan, devices: Sequence[str]) -> TimeEstimate | None:
    """Estimate by solving a few matrices of each shape, cropped where they are large; None as `nominal`.

    Of adapters by merging a few groups of tensors. It gives up after `GIVES_UP_S`, and writes nothing.
    """
    guess = nominal(plan, devices)
    if guess is None:
        return None
    keep_freed_pages()
    kinds = _kinds(plan, guess.seconds)
    with one_thread_each(True), Blocks(plan, devices) as blocks, _solving(devices) as solving:
        wait([_warm(plan, blocks, kinds[0])])
        running, begun = dict[_Part, Future[float]](), dict[str, float]()
        for crop in _crops(plan, guess.seconds, kinds):
            solve, read = partial(_timed, plan, solving, begun), partial(read_crop, plan, crop)
            part = _Part((crop.tensor,), work_of((crop.rows, crop.columns)))
            running[part] = blocks.compute(solve, crop.tensor, read)
        for names in _groups(plan, guess.seconds, EACH * blocks.threads):
            part = _Part(tuple(names), sum(work_on(plan, name) for name in names))
            merge = partial(_timed_changes, plan, blocks, solving, begun, names)
            running[part] = blocks.call(merge, names[0])
        wait(running.values(), GIVES_UP_S)
        end = time.monotonic()
        late = {
            part: end - begun[part.tensors[0]]
            for part, future in running.items()
            if not future.done() and part.tensors[0] in begun
        }
        solving.stop()
        for future in running.values():
            future.cancel()
    taken = {part: future.result() for part, future in running.items() if _is_known(future)} | late
    seconds = _extrapolated(plan, guess.seconds, kinds, taken)
    count = sum(len(part.tensors) for part in taken.keys() - late.keys())
    return TimeEstimate(seconds, blocks.threads, count, bool(late), solving.solved)


def _solving(devices: Sequence[str]) -> Solving:
    """Return what keeps solutions for the merge, except on GPUs, where it may solve on another."""
    return Solving(keeps=list(devices) == [CPU])


class _Part(NamedTuple):
    """What is solved as a sample."""

    tensors: tuple[str, ...]
    """One of which it is a crop, or some whose changes are merged together."""
    work: float


def _kinds(plan: Plan, seconds: Mapping[str, float]) -> list[list[str]]:
    """Return the tensors that have one pace, by shape or merged by factors; first those that take longest."""
    by_shape: dict[tuple[int, ...] | None, list[str]] = defaultdict(list)
    for name in seconds:
        by_shape[None if name in plan.spanned else plan.spec[name].shape].append(name)
    return sorted(by_shape.values(), key=lambda names: -sum(map(seconds.__getitem__, names)))


def _warm(plan: Plan, blocks: Blocks, names: Sequence[str]) -> "Future[Any]":
    """Start something small, as tensors of one kind are solved; nothing of it is kept."""
    name, solving = names[0], Solving()
    if name in plan.spanned:
        cores = [(i + 1) * np.eye(WARMS_UP) for i in range(len(plan.inputs))]
        core = Block(name, 0, 0, cores, np.zeros_like(cores[0]))
        return blocks.call(partial(_solve, plan, solving, core), name)
    crop = small(plan, name, WARMS_UP)
    return blocks.compute(partial(_solve, plan, solving), name, partial(read_crop, plan, crop))


def _crops(plan: Plan, seconds: Mapping[str, float], kinds: Sequence[Sequence[str]]) -> Iterator[Crop]:
    """Yield some of each shape, one of every shape before the second of any."""
    spread = [_evenly(names, EACH) for names in kinds if names[0] not in plan.spanned]
    for turn in range(EACH):
        for names in spread:
            if turn < len(names):
                matrices, _, _ = as_stack(plan.spec[names[turn]].shape)
                yield cropped(plan, names[turn], SAMPLE_S * matrices / seconds[names[turn]])


def _groups(plan: Plan, seconds: Mapping[str, float], count: int) -> Iterator[list[str]]:
    """Yield so many groups of tensors whose changes are merged together, or what of them is not too much."""
    changed = [name for name in seconds if name in plan.spanned]
    groups = plan.groups if plan.together else [[name] for name in changed]
    for names in _evenly([group for group in groups if not set(changed).isdisjoint(group)], count):
        before = accumulate((seconds.get(name, 0.0) for name in names[:-1]), initial=0.0)
        yield [name for name, taken in zip(names, before, strict=True) if taken < SAMPLE_S]


def _evenly(items: Sequence[Item], count: int) -> list[Item]:
    """Return so many at most, from evenly spaced places."""
    count = min(count, len(items))
    return [items[(2 * turn + 1) * len(items) // (2 * count)] for turn in range(count)]


def _solve(plan: Plan, solving: Solving, block: Block) -> None:
    """Merge a crop, or a core, as its tensor would be merged, for all variants."""
    variants = _alone(plan, solving, {block.tensor: tuple(block.thetas[0].shape)})
    run = plan.method.run_on_cores if block.tensor in plan.spanned else plan.method.run
    finish = run_program(run(variants), [block.tensor], lambda name: block)
    for _ in finish(block):
        pass


def _merge_changes(plan: Plan, blocks: Blocks, solving: Solving, names: Sequence[str]) -> None:
    """Merge the changes of some tensors for all variants; onto a base, too, but write nothing."""
    variants = _alone(plan, solving, {name: plan.shapes[name] for name in names})
    if isinstance(plan, AdapterPlan):
        for settings in variants:
            merge_group(plan, settings, names)
        return
    merge = merge_changes(plan, names, variants)
    for name in names:
        changes = merge(name)
        for piece in cut(name, plan.spec[name].shape, whole=False, blocks=ADDED):
            for _ in add_changes(blocks.base(piece), changes, piece.start // piece.columns):
                pass


def _alone(plan: Plan, solving: Solving, shapes: Mapping[str, tuple[int, ...]]) -> list[Settings]:
    """Return the settings of a merge of tensors of these shapes."""
    return [replace(settings, shapes=shapes, solving=solving) for settings in plan.variants]


def _timed(plan: Plan, solving: Solving, begun: dict[str, float], block: Block) -> float:
    begun[block.tensor] = time.monotonic()
    _solve(plan, solving, block)
    return time.monotonic() - begun[block.tensor]


def _timed_changes(
    plan: Plan, blocks: Blocks, solving: Solving, begun: dict[str, float], names: Sequence[str]
) -> float:
    begun[names[0]] = time.monotonic()
    _merge_changes(plan, blocks, solving, names)
    return time.monotonic() - begun[names[0]]


def _is_known(future: "Future[float]") -> bool:
    """Tell whether a sample was solved; what fails will fail again, and be named, when it is merged."""
    return future.done() and not future.cancelled() and future.exception() is None


def _extrapolated(
    plan: Plan, guess: Mapping[str, float], kinds: Sequence[Sequence[str]], taken: Mapping[_Part, float]
) -> dict[str, float]:
    """Return every tensor's seconds, at its kind's pace; at that of all where its kind has none."""
    paces = {name: seconds / part.work for part, seconds in taken.items() for name in part.tensors}
    overall = sum(taken.values()) / (sum(part.work for part in taken) or 1)
    found: dict[str, float] = {}
    for names in kinds:
        own = [paces[name] for name in names if name in paces] or [overall]
        pace = sum(own) / len(own)
        found |= {name: pace * work_on(plan, name) if pace else guess[name] for name in names}
    return found
