"""Executing a plan: each block is read once and merged into every variant; tensors finish in order."""

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tasks.base.errors import BadInput
from tasks.base.measures import MethodMeasures, TensorMeasures
from tasks.base.threads import one_thread_each
from tasks.checkpoints.weights import SafetensorsModel
from tasks.engine.blocks import Blocks
from tasks.engine.cut import ADDED, Piece, cut, parts, sample
from tasks.engine.estimate import TimeEstimate
from tasks.engine.leaving import leave
from tasks.engine.memory import keep_freed_pages
from tasks.engine.output import Output, Written, open_output
from tasks.engine.plan import Plan
from tasks.engine.progress import TELL_EVERY_S, Headway, OnProgress, untold
from tasks.engine.spanned import MergedChange, add_changes, merge_changes
from tasks.merging.block import Block
from tasks.merging.deviation import deviation
from tasks.merging.deviation_sums import Deviation, describe, join
from tasks.merging.program import FamilyFinish, Measure, Settings, worst
from tasks.merging.solving import Solving


def execute(
    plan: Plan,
    directories: Sequence[Path],
    max_shard_bytes: int,
    devices: Sequence[str],
    on_progress: OnProgress = untold,
    expected: TimeEstimate | None = None,
) -> list[Written]:
    """Write each variant's weight files into its directory, resuming what a killed execution left there.

    Progress tells how long the rest takes by what was `expected` and what it took so far; what was solved for
    that is not solved again.
    Raises BadInput for NaN, overflow and integers that differ; LorelineError when a method fails.
    """
    keep_freed_pages()
    with ExitStack() as stack:
        outputs = [
            stack.enter_context(open_output(directory, plan.spec, max_shard_bytes))
            for directory in directories
        ]
        _pass_over(plan, [name for name in plan.spec if not any(own.lacks(name) for own in outputs)])
        stack.enter_context(one_thread_each(plan.method.whole))
        blocks = Blocks(plan, devices)
        # One thread more than compute blocks, so that there are always blocks waiting for a thread. ExitStack
        # leaves in reverse order: tensors are cancelled first, then the blocks that they wait for.
        tensors = ThreadPoolExecutor(blocks.threads + 1)
        solving = Solving(expected.solved if expected else None)
        stack.push(lambda kind, error, trace: leave(tensors, error))
        stack.enter_context(blocks)
        stack.callback(tensors.shutdown, wait=False, cancel_futures=True)
        stack.enter_context(solving)
        _Merging(plan, outputs, blocks, solving).start(tensors)
        last, done = "", 0

        def lacking() -> list[str]:
            return max((output.unfinished for output in outputs), key=len)

        begun, at_first = time.monotonic(), lacking()

        def tell() -> None:
            rest, of = lacking(), len(plan.spec)
            left = expected.left(at_first, rest, time.monotonic() - begun) if expected and rest else ""
            on_progress(Headway(last, done, plan.bytes_written, of - len(rest), of, solving.passes, left))

        for name, stored in plan.spec.items():
            for output in outputs:
                while not output.is_ready(name, TELL_EVERY_S):
                    tell()
                output.finish(name)  # in the order of the files, because the journal hashes along them
            last, done = name, done + len(outputs) * stored.size
            tell()
        return [output.close() for output in outputs]


def survey(
    plan: Plan,
    measure: Measure,
    devices: Sequence[str],
    on_progress: OnProgress = untold,
) -> dict[str, list[Any]]:
    """Measure every block of the floating tensors, writing nothing; return results by tensor, in order."""
    keep_freed_pages()
    found: dict[str, list[Any]] = {}
    done, total = 0, sum(plan.spec[name].size for name in plan.shapes)
    with one_thread_each(False), Blocks(plan, devices) as blocks:
        for count, name in enumerate(plan.shapes, 1):
            found |= blocks.measure(measure, [name])
            done += plan.spec[name].size
            on_progress(Headway(name, done, total, count, len(plan.shapes), {}))
    return found


def _pass_over(plan: Plan, names: Sequence[str]) -> None:
    """Let no digest wait for tensors that an earlier process has merged."""
    for source in plan.sources:
        if not isinstance(source, SafetensorsModel):
            continue
        for name in names:
            if running := source.running.get(source.files[name]):
                running.absent(source.tensors[name].start, source.tensors[name].end)


class _Merging:
    """Takes tensors through their rounds of measurement, and to the outputs that lack them."""

    def __init__(self, plan: Plan, outputs: Sequence[Output], blocks: Blocks, solving: Solving) -> None:
        self._plan = plan
        self._solving = solving
        self._variants = list(zip(plan.variants, outputs, strict=True))
        self._blocks = blocks

    def start(self, threads: Executor) -> None:
        """Submit every tensor that an output lacks, in order."""
        measured_together = {name: group for group in self._plan.groups for name in group}
        started: set[str] = set()
        for name in self._plan.spec:
            if name in started or not self._lacking([name]):
                continue
            if name in measured_together:
                started.update(group := measured_together[name])
                threads.submit(self._merge_changes if name in self._plan.spanned else self._merge, group)
            else:
                threads.submit(self._copy, name)

    def _lacking(self, names: Sequence[str]) -> list[tuple[Settings, Output]]:
        """Return the variants that lack some of these tensors."""
        return [own for own in self._variants if any(own[1].lacks(name) for name in names)]

    def _merge(self, names: Sequence[str]) -> None:
        """Measure tensors that belong together, then merge and write them."""
        variants = self._lacking(names)
        outputs = [output for _, output in variants]
        try:
            finish = self._measured(names, [settings for settings, _ in variants])
            # After a kill some tensors of a group may be finished: those are measured again, but not merged.
            running = {
                name: self._blocks.start(partial(_write, finish, outputs, self._sampled(name)), name)
                for name in names
                if self._lacking([name])
            }
            for name, blocks in running.items():
                found, deviations = zip(*blocks.result(), strict=True)
                measured = join([part for own in deviations for part in own])
                known = describe(measured, math.prod(self._plan.shapes[name]))
                for output, own in zip(outputs, zip(*found, strict=True), strict=True):
                    output.complete(name, TensorMeasures(deviation=known, method=worst(own)))
        except BaseException as error:  # whatever it is: who waits for these tensors has to hear of it
            for name in names:
                for output in outputs:
                    output.fail(name, error)

    def _sampled(self, name: str) -> Callable[[Block], list[Deviation]]:
        """Return what measures the blocks, or parts of whole matrices, that are in the sample."""
        starts, whole = sample(name, self._plan.shapes[name]), self._plan.method.whole
        # a whole matrix's task vectors would take as much memory as the checkpoints
        return lambda block: [
            deviation(part)
            for part in (parts(block, self._blocks.compiled) if whole else [block])
            if part.start in starts
        ]

    def _measured(self, names: Sequence[str], variants: Sequence[Settings]) -> FamilyFinish:
        program = self._plan.method.run(self._alone(variants, names))
        try:
            measure = next(program)
            while True:
                measure = program.send(self._blocks.measure(measure, names, keep=True))
        except StopIteration as stop:
            finish: FamilyFinish = stop.value
            return finish

    def _merge_changes(self, names: Sequence[str]) -> None:
        """Merge the changes that adapters make to tensors of the base, and write base + change."""
        variants, plan = self._lacking(names), self._plan
        outputs = [output for _, output in variants]
        try:
            # of finished tensors, too: what comes out may depend, by rounding, on what is solved with it
            own = self._alone([settings for settings, _ in variants], names)
            [merge] = self._blocks.submit(partial(merge_changes, plan, names), names[0], [own]).result()
            merging = {
                name: self._blocks.submit(merge, name, [name]) for name in names if self._lacking([name])
            }
            writing = {}
            for name, running in merging.items():
                [changes] = running.result()
                pieces = cut(name, plan.spec[name].shape, whole=False, blocks=ADDED)
                write = partial(self._write_changed, changes, outputs)
                writing[name] = changes, self._blocks.submit(write, name, pieces)
            for name, (changes, running) in writing.items():
                running.result()
                for output, change in zip(outputs, changes, strict=True):
                    output.complete(name, change.measures)
        except BaseException as error:
            for name in names:
                for output in outputs:
                    output.fail(name, error)

    def _write_changed(
        self, changes: Sequence[MergedChange], outputs: Sequence[Output], piece: Piece
    ) -> None:
        variants = add_changes(self._blocks.base(piece), changes, piece.start // piece.columns)
        for output, merged in zip(outputs, variants, strict=True):
            output.write(piece.tensor, piece.start, merged)

    def _alone(self, variants: Sequence[Settings], names: Sequence[str]) -> list[Settings]:
        """Return the settings of a merge of these tensors."""
        shapes = {name: self._plan.shapes[name] for name in names}
        return [replace(settings, shapes=shapes, solving=self._solving) for settings in variants]

    def _copy(self, name: str) -> None:
        """Write a tensor of integers, which has to be the same everywhere, or an empty one."""
        try:
            count = math.prod(self._plan.spec[name].shape)
            *others, newest = (source.stored(name, 0, count) for source in self._plan.inputs)
            for other, source in zip(others, self._plan.inputs, strict=False):
                if not np.array_equal(other, newest):
                    raise BadInput(
                        source.label,
                        f"tensor {name} ({newest.dtype}) differs from {self._plan.inputs[-1].label}",
                        "only floating-point tensors can be merged",
                    )
            for _, output in self._variants:
                output.copy(name, newest)
        except BaseException as error:
            for _, output in self._variants:
                output.fail(name, error)


def _write(
    finish: FamilyFinish,
    outputs: Sequence[Output],
    measure: Callable[[Block], list[Deviation]],
    block: Block,
) -> tuple[list[MethodMeasures | None], list[Deviation]]:
    """Write a block's variants, each before the next is computed; return their measures, and deviations."""
    measures: list[MethodMeasures | None] = []
    known = measure(block)  # first: methods on whole matrices overwrite the weights
    for output, (merged, found) in zip(outputs, finish(block), strict=True):
        output.write(block.tensor, block.start, merged)
        measures.append(found)
    return measures, known
