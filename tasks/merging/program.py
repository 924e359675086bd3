"""Programs: a method as rounds of measurements on blocks, then one function that merges a block.

A program is a generator. It yields a function of one block; the engine calls it on every block of the
program's tensors, in any order and in parallel, and sends back the results by tensor, in the order of the
blocks. In the end the program returns the function that merges a block. So no method holds a whole tensor,
reads a file or knows about threads, and the same program runs on blocks of any size.

A family is a program for several variants of one merge: they share the blocks, and its last function yields
one merged array for each. The engine knows families only; a single merge is a family of one.
"""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from tasks.base.errors import BadInput
from tasks.base.measures import Averaged, MethodMeasures
from tasks.merging.arrays import Array
from tasks.merging.block import Block
from tasks.merging.solving import Solving
from tasks.parameters.merge import MergeParams

Measure: TypeAlias = Callable[[Block], Any]
Results: TypeAlias = Mapping[str, Sequence[Any]]
Merged: TypeAlias = tuple[Array, MethodMeasures | None]
"""A merged block, and the method's measures of it."""
Finish: TypeAlias = Callable[[Block], Merged]
Program: TypeAlias = Generator[Measure, Results, Finish]
FamilyFinish: TypeAlias = Callable[[Block], Iterable[Merged]]
"""Yields one merged block after the other, in the order of the variants: only one need be held at a time."""
FamilyProgram: TypeAlias = Generator[Measure, Results, FamilyFinish]
Rates: TypeAlias = Sequence[tuple[int, float]]
"""The learning rate that was logged at a step, by step."""
Finished = TypeVar("Finished")


@dataclass(frozen=True)
class Settings:
    """Parameters, steps and shapes: what a method reads beside the blocks."""

    params: MergeParams
    """The parameters as given; `at` has those that hold for one tensor."""
    at: Callable[[str], MergeParams]
    """Tensor name → parameters, with values that vary over layers resolved to numbers."""
    steps: Sequence[int]
    """Training steps of the checkpoints, oldest first."""
    shapes: Mapping[str, tuple[int, ...]]
    """The tensors to merge, in the order in which they are written."""
    dtypes: Mapping[str, str] = field(default_factory=dict)
    """Tensor name → dtype in which it is written; float32 where that is not known."""
    rates: Rates = ()
    """The learning rates of their run; empty where they are not known."""
    coefficients: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Tensor name → λ_i, where the method has them learned on text."""
    solving: Solving = field(default_factory=Solving, compare=False)
    """Hears of every pass of methods that solve."""

    @property
    def count(self) -> int:
        """N, the number of checkpoints."""
        return len(self.steps)


def check_counts(settings: Settings) -> None:
    """Raise BadInput where weights, densities and the like are not one number for each checkpoint."""
    for key, given in settings.params.for_each.items():
        if given != settings.count:
            noun = "weights" if key == "weights" else "values"
            raise BadInput(
                f"merge.{key}",
                f"{given} {noun} for {settings.count} checkpoints",
                "give one for each, oldest first",
            )


def without_measuring(finish: Finish) -> Program:
    """Return the program of a method that needs nothing but the block."""
    return finish
    yield  # makes this a generator


def run_program(
    program: Generator[Measure, Results, Finished], names: Sequence[str], block: Callable[[str], Block]
) -> Finished:
    """Run a program with one block for each tensor; return its result."""
    try:
        measure = next(program)
        while True:
            measure = program.send({name: [measure(block(name))] for name in names})
    except StopIteration as stop:
        finish: Finished = stop.value
        return finish


def together(programs: Sequence[Program]) -> FamilyProgram:
    """Advance programs in lock-step over the same blocks; those that have finished measuring wait."""
    measures: dict[int, Measure] = {}
    finishes: dict[int, Finish] = {}

    def advance(i: int, results: Results | None) -> None:
        try:
            measures[i] = programs[i].send(results)  # type: ignore[arg-type]  # None starts a generator
        except StopIteration as stop:
            measures.pop(i, None)
            finishes[i] = stop.value

    for i in range(len(programs)):
        advance(i, None)
    while measures:
        results = yield _all_of(dict(measures))
        for i in list(measures):
            advance(i, {tensor: [part[i] for part in parts] for tensor, parts in results.items()})
    return lambda block: (finishes[i](block) for i in range(len(programs)))


def _all_of(measures: Mapping[int, Measure]) -> Measure:
    return lambda block: {i: measure(block) for i, measure in measures.items()}


def worst(found: Sequence[MethodMeasures | None]) -> MethodMeasures | None:
    """Join a method's measures of a tensor's blocks: the largest of each, number by number for tuples.

    Of spectra the one with the largest first value; flags hold where they hold in all blocks. Where some
    matrices of a stack were averaged, the others decide, unless it was for want of time.
    """
    known = [part for part in found if part is not None]
    late = [part for part in known if isinstance(part, Averaged) and part.out_of_time]
    solved = [part for part in known if not isinstance(part, Averaged)]
    parts: Sequence[MethodMeasures] = late or solved or known
    if len(parts) < 2:
        return parts[0] if parts else None
    first = parts[0]
    largest = {name: _largest([getattr(part, name) for part in parts]) for name in type(first).model_fields}
    return first.model_copy(update=largest)


def _largest(values: Sequence[Any]) -> Any:
    if None in values:
        return None
    if isinstance(values[0], bool):
        return all(values)
    if isinstance(values[0], tuple):
        return tuple(max(own) for own in zip(*values, strict=True))
    return max(values)
