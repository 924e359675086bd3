"""How a method runs: measurements on blocks, any number of rounds, then one function that merges a block.

A program is a generator. It yields a function of one block; the engine calls it on every block of the
program's tensors, in any order and in parallel, and sends back the results by tensor, in the order of the
blocks. In the end the program returns the function that merges a block. So no method holds a whole tensor,
reads a file or knows about threads, and the same program runs on blocks of any size.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from tasks.merge_params import MergeParams
from tasks.merging.block import Array, Block

Facts: TypeAlias = Mapping[str, Any]
"""What a method measured on a tensor: JSON-able numbers, strings, booleans, lists of integers."""

Measure: TypeAlias = Callable[[Block], Any]
Results: TypeAlias = Mapping[str, Sequence[Any]]
Finish: TypeAlias = Callable[[Block], tuple[Array, Facts]]
Program: TypeAlias = Generator[Measure, Results, Finish]


@dataclass(frozen=True)
class Settings:
    """What a method needs to know beside the blocks."""

    params: MergeParams
    """The parameters as given; `at` has those that hold for one tensor."""
    at: Callable[[str], MergeParams]
    """Tensor name → parameters, with values that vary over layers resolved to numbers."""
    steps: Sequence[int]
    """Training steps of the checkpoints, oldest first."""
    shapes: Mapping[str, tuple[int, ...]]
    """The tensors to merge, in the order in which they are written."""

    @property
    def count(self) -> int:
        """N, the number of checkpoints."""
        return len(self.steps)


def without_measuring(finish: Finish) -> Program:
    """Return the program of a method that needs nothing but the block."""
    return finish
    yield  # makes this a generator


def worst(facts: Sequence[Facts]) -> dict[str, Any]:
    """Join the facts of a tensor's blocks: the largest of each, element by element for lists."""
    joined: dict[str, Any] = {}
    for part in facts:
        for key, value in part.items():
            if key not in joined:
                joined[key] = value
            elif isinstance(value, list):
                joined[key] = [max(pair) for pair in zip(joined[key], value, strict=True)]
            else:
                joined[key] = max(joined[key], value)
    return joined
