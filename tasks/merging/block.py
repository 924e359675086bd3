"""The block that methods work on: the same rows of one tensor from every checkpoint."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias

from tasks.merging.arrays import Array, double

Weight: TypeAlias = float | Array
"""A checkpoint's weight: a number for the whole tensor, or an array that broadcasts over a block (WIDEN: one
for each column)."""


OF_ROWS = ":rows"
"""Ends the name of what is measured of a layer whose weights are inputs × outputs."""


@dataclass(frozen=True)
class Block:
    """Some rows of one tensor, rows × columns, float32 or float64; a vector has one column.

    A stack of matrices is cut matrix by matrix, a convolution is one matrix out × (in · k).
    """

    tensor: str
    matrix: int
    """Which matrix of the stack; 0 when there is only one."""
    start: int
    """Flat position of the block's first element in its tensor."""
    thetas: Sequence[Array]
    """One array for each checkpoint, oldest first; of a whole matrix one array N × rows × columns."""
    base: Array | None
    """The model they started from, where the merge has one."""
    importance: Sequence[Array] = ()
    """How much each element matters to each checkpoint, where the method has that measured."""
    grams: Sequence[Array] = ()
    """Σ x xᵀ of a linear layer's inputs x for each checkpoint, where the method has that measured; of whole
    matrices only."""
    grams_of_rows: bool = False
    """Whether the inputs are the matrix's rows; else its columns."""

    def double(self) -> "Block":
        """Return the same block in float64."""
        base = None if self.base is None else double(self.base)
        importance = [double(own) for own in self.importance]
        return replace(
            self, thetas=[double(theta) for theta in self.thetas], base=base, importance=importance
        )

    def part(self, first: int, last: int) -> "Block":
        """Return the rows from `first` up to `last`, without copying."""
        columns = self.thetas[0].shape[1]
        thetas = [theta[first:last] for theta in self.thetas]
        base = None if self.base is None else self.base[first:last]
        importance = [own[first:last] for own in self.importance]
        start = self.start + first * columns
        return replace(self, start=start, thetas=thetas, base=base, importance=importance)

    @cached_property
    def mean(self) -> Array:
        """The plain average."""
        # Divides the sum instead of weighting by 1/N: the average of equal numbers is then exact.
        first, *others = self.thetas
        # a new array either way, because the sums below are made in place
        total = first * 1.0 if not others else first + others[0]
        for theta in others[1:]:
            total += theta
        total /= len(self.thetas)
        return total

    @cached_property
    def anchor(self) -> Array:
        """θ_0: the base, or the mean without one."""
        return self.mean if self.base is None else self.base

    @cached_property
    def deltas(self) -> list[Array]:
        """δ_i = θ_i − θ_0."""
        return [theta - self.anchor for theta in self.thetas]
