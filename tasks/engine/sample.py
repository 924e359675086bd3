"""Foretelling how long a merge takes, by solving a sample of its matrices."""

import math
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from tasks.base.threads import one_thread_each
from tasks.checkpoints.numbers import Numbers
from tasks.checkpoints.weights import WeightReader
from tasks.engine.blocks import Blocks
from tasks.engine.cut import as_stack
from tasks.engine.devices import CPU
from tasks.engine.estimate import NOMINAL_S, TimeEstimate, nominal, work_of
from tasks.engine.memory import keep_freed_pages
from tasks.engine.plan import Plan
from tasks.merging.block import Block
from tasks.merging.program import run_program
from tasks.merging.solving import Solving

SMALL_S = 15.0
"""Nominal seconds of a merge for which no sample is taken: it is over before that would help."""
SAMPLE_S = 1.0
"""Nominal seconds beyond which a matrix of the sample is cropped."""
EACH = 2
"""Matrices of each shape that are solved; their spectra differ from layer to layer."""
GIVES_UP_S = 6.0
"""Seconds after which what has ended counts."""
CHUNKS = 16
"""Runs of rows, spread over a matrix, that a crop is taken from: neighbouring tokens are alike."""
WARMS_UP = 32
"""Size of the first matrix, which loads the libraries and does not count."""


def foretell(plan: Plan, devices: Sequence[str]) -> TimeEstimate | None:
    """Estimate a merge that is about to begin: by a sample, unless it is over in the time that this takes."""
    guess = nominal(plan, devices)
    return sampled(plan, devices) if guess and guess.total > SMALL_S else guess


def sampled(plan: Plan, devices: Sequence[str]) -> TimeEstimate | None:
    """Estimate by solving a few matrices of each shape, cropped where they are large; None as `nominal`.

    It gives up after `GIVES_UP_S`, and writes nothing.
    """
    guess = nominal(plan, devices)
    if guess is None:
        return None
    keep_freed_pages()
    by_shape: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for name in guess.seconds:
        by_shape[plan.spec[name].shape].append(name)
    groups = sorted(by_shape.values(), key=lambda names: -sum(map(guess.seconds.__getitem__, names)))
    with one_thread_each(True), Blocks(plan, devices) as blocks, _solving(devices) as solving:
        warm = _Crop(groups[0][0], *(min(WARMS_UP, side) for side in _sides(plan, groups[0][0])))
        wait([blocks.compute(partial(_solve, plan, solving), warm.tensor, partial(_read, plan, warm))])
        running, begun = {}, dict[str, float]()
        for name in _spread(groups):
            crop = _Crop(name, *_cropped(len(plan.inputs), *_sides(plan, name)))
            solve = partial(_timed, plan, solving, begun)
            running[crop] = blocks.compute(solve, name, partial(_read, plan, crop))
        wait(running.values(), GIVES_UP_S)
        end = time.monotonic()
        late = {
            crop: end - begun[crop.tensor]
            for crop, future in running.items()
            if not future.done() and crop.tensor in begun
        }
        solving.stop()
        for future in running.values():
            future.cancel()
    taken = {crop: future.result() for crop, future in running.items() if _is_known(future)} | late
    seconds = _extrapolated(plan, guess.seconds, groups, taken)
    return TimeEstimate(seconds, blocks.threads, len(taken) - len(late), bool(late), solving.solved)


def _solving(devices: Sequence[str]) -> Solving:
    """Return what keeps solutions for the merge, except on GPUs, where it may solve on another."""
    return Solving(keeps=list(devices) == [CPU])


class _Crop(NamedTuple):
    """As much of a tensor's matrix as is solved."""

    tensor: str
    rows: int
    columns: int


def _sides(plan: Plan, name: str) -> tuple[int, int]:
    return as_stack(plan.spec[name].shape)[1:]


def _spread(groups: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield names of each group from evenly spaced places, one of every group before the second of any."""
    for turn in range(EACH):
        for names in groups:
            if turn < len(names):
                yield names[(2 * turn + 1) * len(names) // (2 * min(EACH, len(names)))]


def _cropped(count: int, rows: int, columns: int) -> tuple[int, int]:
    """Return the sides of a matrix of the same proportions that takes `SAMPLE_S` at most, nominally."""
    scale = min(1.0, (SAMPLE_S / (NOMINAL_S * count * work_of((rows, columns)))) ** (1 / 3))
    return math.ceil(rows * scale), math.ceil(columns * scale)


def _read(plan: Plan, crop: _Crop) -> Block:
    """Read a crop: runs of rows that are spread over the matrix, and every so many-th column of them."""
    rows, columns = _sides(plan, crop.tensor)
    chunks = min(CHUNKS, crop.rows) if crop.rows < rows else 1
    counts = [len(part) for part in np.array_split(np.arange(crop.rows), chunks)]
    starts = [round(i * (rows - counts[0]) / max(1, chunks - 1)) for i in range(chunks)]
    kept = np.linspace(0, columns - 1, crop.columns).round().astype(int)
    dtype = plan.dtype(crop.tensor)

    def of(source: WeightReader) -> Numbers:
        parts = (
            source.read(crop.tensor, start * columns, count * columns, dtype).reshape(count, columns)
            for start, count in zip(starts, counts, strict=True)
        )
        return np.concatenate([part.take(kept, 1) for part in parts])  # in order: [:, kept] would turn it

    thetas: Any = np.stack([of(source) for source in plan.inputs])
    return Block(crop.tensor, 0, 0, thetas, of(plan.base) if plan.base else None)


def _solve(plan: Plan, solving: Solving, block: Block) -> None:
    """Merge a crop as its tensor would be merged, for all variants."""
    shapes = {block.tensor: tuple(block.thetas[0].shape)}
    variants = [replace(settings, shapes=shapes, solving=solving) for settings in plan.variants]
    finish = run_program(plan.method.run(variants), [block.tensor], lambda name: block)
    for _ in finish(block):
        pass


def _timed(plan: Plan, solving: Solving, begun: dict[str, float], block: Block) -> float:
    begun[block.tensor] = time.monotonic()
    _solve(plan, solving, block)
    return time.monotonic() - begun[block.tensor]


def _is_known(future: "Future[float]") -> bool:
    """Tell whether a sample was solved; what fails will fail again, and be named, when it is merged."""
    return future.done() and not future.cancelled() and future.exception() is None


def _extrapolated(
    plan: Plan, guess: Mapping[str, float], groups: Sequence[Sequence[str]], taken: Mapping[_Crop, float]
) -> dict[str, float]:
    """Return every tensor's seconds, at its shape's pace; at that of all where its shape has none."""
    paces = {crop.tensor: seconds / work_of((crop.rows, crop.columns)) for crop, seconds in taken.items()}
    overall = sum(taken.values()) / (sum(work_of((crop.rows, crop.columns)) for crop in taken) or 1)
    found: dict[str, float] = {}
    for names in groups:
        own = [paces[name] for name in names if name in paces] or [overall]
        pace = sum(own) / len(own)
        found |= {name: pace * work_of(plan.spec[name].shape) if pace else guess[name] for name in names}
    return found
