"""Cutting tensors into blocks of rows, always at the same places."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from tasks.merging.arrays import of_numpy
from tasks.merging.block import Block
from tasks.merging.deferred import written_down
from tasks.merging.roles import is_embedding, is_head

BLOCK = 2**18
"""Elements of a block: a megabyte of float32, so that the arrays of one block stay in the second-level cache.

Fixed, because sums are taken block by block: the places of the cuts decide the last bits of a result.
"""

ADDED = 4
"""Blocks of a base that a change is added to at a time: its factors come from memory for each time."""


class Piece(NamedTuple):
    """Some rows of a tensor seen as a stack of matrices."""

    tensor: str
    matrix: int
    start: int
    """Flat position of the first element in the tensor."""
    rows: int
    columns: int


def cut(tensor: str, shape: tuple[int, ...], whole: bool, blocks: int = 1) -> list[Piece]:
    """Cut a tensor into pieces of so many times BLOCK elements at most, or into its whole matrices."""
    stack, rows, columns = as_stack(shape)
    matrices = [Piece(tensor, i, i * rows * columns, rows, columns) for i in range(stack)]
    return matrices if whole else [part for matrix in matrices for part in split(matrix, blocks)]


def split(piece: Piece, blocks: int = 1) -> list[Piece]:
    """Cut a piece into pieces of so many times BLOCK elements at most."""
    tensor, matrix, start, rows, columns = piece
    step = blocks * _rows(columns)
    return [
        Piece(tensor, matrix, start + row * columns, min(step, rows - row), columns)
        for row in range(0, max(rows, 1), step)  # an empty tensor is one empty piece
    ]


SAMPLE, AT_LEAST = 16, 2**19
"""For the report one in so many blocks of a tensor is measured, of so many elements at least."""


def sample(tensor: str, shape: tuple[int, ...]) -> frozenset[int]:
    """Return where the blocks start that the report's norms and cosines are measured on.

    They are spread evenly; of a tensor of less than twice AT_LEAST elements they are all, and of embeddings
    and heads: their rows change as often as their tokens occur, and a few blocks miss the norms by far.
    """
    starts = [piece.start for piece in cut(tensor, shape, whole=False)]
    if is_embedding(tensor, shape) or is_head(tensor, shape):
        return frozenset(starts)
    every = max(1, min(SAMPLE, math.prod(shape) // AT_LEAST, len(starts)))
    return frozenset(starts[every // 2 :: every])


def parts(block: Block, compiled: bool = False) -> Iterator[Block]:
    """Cut a block of a whole matrix where `cut` would have cut the matrix; the parts are float64.

    `compiled`: numpy's arrays become expressions, for compiled loops.
    """
    rows, columns = block.thetas[0].shape
    step = _rows(columns)
    for first in range(0, max(rows, 1), step):
        part = block.part(first, first + step)
        if compiled and of_numpy(block.thetas):
            base = None if part.base is None else written_down(part.base)
            part = replace(part, thetas=[written_down(theta) for theta in part.thetas], base=base)
        yield part.double()


def _rows(columns: int) -> int:
    # whole rows: a row longer than BLOCK is a block by itself
    return max(1, BLOCK // max(columns, 1))


def as_stack(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """See a shape as (matrices, rows, columns): a vector is one column, a convolution out × (in · k)."""
    if len(shape) == 3:
        return shape[0], shape[1], shape[2]
    if len(shape) < 2:
        return 1, math.prod(shape), 1
    return 1, shape[0], math.prod(shape[1:])
