"""The pieces of a tensor are its elements, each once, in order."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.engine import cut as module
from tasks.engine.cut import AT_LEAST, BLOCK, SAMPLE, as_stack, cut, parts, sample
from tasks.merging.block import Block
from tasks.merging.deferred import Deferred

shapes = st.lists(st.integers(0, 9), max_size=5).map(tuple)


@given(shape=shapes, block=st.integers(1, 40), whole=st.booleans())
@settings(max_examples=300)
def test_pieces_tile_a_tensor_in_order(shape: tuple[int, ...], block: int, whole: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", block)
        pieces = cut("w", shape, whole)
    reached = 0
    for piece in pieces:
        assert piece.tensor == "w"
        assert piece.start == reached
        reached += piece.rows * piece.columns
    assert reached == math.prod(shape)


@given(shape=shapes.filter(lambda shape: math.prod(shape) > 0), block=st.integers(1, 40))
@settings(max_examples=300)
def test_no_piece_is_empty_or_larger_than_a_block_unless_it_is_one_row(
    shape: tuple[int, ...], block: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", block)
        pieces = cut("w", shape, whole=False)
    for piece in pieces:
        assert piece.rows * piece.columns > 0
        assert piece.rows == 1 or piece.rows * piece.columns <= block


@given(shape=shapes.filter(lambda shape: math.prod(shape) > 0))
def test_whole_pieces_are_the_matrices(shape: tuple[int, ...]) -> None:
    stack, rows, columns = as_stack(shape)
    assert [(piece.matrix, piece.rows, piece.columns) for piece in cut("w", shape, whole=True)] == [
        (matrix, rows, columns) for matrix in range(stack)
    ]


@pytest.mark.parametrize(
    ("shape", "stack"),
    [
        ((), (1, 1, 1)),
        ((7,), (1, 7, 1)),
        ((4, 5), (1, 4, 5)),
        ((8, 4, 5), (8, 4, 5)),
        ((8, 4, 3, 3), (1, 8, 36)),
        ((8, 4, 2, 3, 3), (1, 8, 72)),
    ],
)
def test_shapes_are_seen_as_matrices(shape: tuple[int, ...], stack: tuple[int, int, int]) -> None:
    """A vector is one column, a 3-D tensor a stack of experts, a convolution out × (in · k)."""
    assert as_stack(shape) == stack


@pytest.mark.parametrize("blocks", [1, 4])
def test_a_piece_never_crosses_from_one_matrix_into_the_next(blocks: int) -> None:
    for piece in cut("experts", (5, 4000, 300), whole=False, blocks=blocks):
        assert piece.start // 1_200_000 == (piece.start + piece.rows * piece.columns - 1) // 1_200_000
        assert piece.matrix == piece.start // 1_200_000


def test_memory_does_not_grow_with_the_tensor() -> None:
    for shape in ((2**28,), (2**18, 2**12)):
        for blocks in (1, 4):
            pieces = cut("w", shape, whole=False, blocks=blocks)
            assert max(piece.rows * piece.columns for piece in pieces) <= blocks * BLOCK
            assert sum(piece.rows * piece.columns for piece in pieces) == math.prod(shape)


def test_the_parts_of_a_whole_matrix_are_its_rows_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 20)
    theta, base = (np.random.default_rng(i).normal(size=(7, 6)).astype(np.float32) for i in range(2))
    block = Block("w", 2, 84, [theta], base)
    found = list(parts(block))
    assert [part.start for part in found] == [84, 102, 120]
    assert {part.matrix for part in found} == {2}
    for whole, again in ((theta, [part.thetas[0] for part in found]), (base, [part.base for part in found])):
        assert {part.dtype for part in again} == {np.dtype(np.float64)}
        assert np.array_equal(np.concatenate(again), whole)


def test_parts_may_be_expressions_of_the_same_numbers() -> None:
    thetas = np.random.default_rng(0).normal(size=(3, 7, 6)).astype(np.float32)
    for base in (None, thetas[0] + 1):
        block = Block("w", 0, 0, thetas, base)
        for plain, written in zip(parts(block), parts(block, compiled=True), strict=True):
            assert all(isinstance(theta, Deferred) for theta in written.thetas)
            for one, other in zip(plain.deltas, written.deltas, strict=True):
                assert other.dtype == one.dtype == np.float64
                assert np.array_equal(one, np.asarray(other))


@given(
    st.sampled_from(
        [
            (64, 4096, 512),
            (32000, 1024),
            (2816, 1024),
            (576, 1536),
            (1024,),
            (0, 5),
            (3, BLOCK * 2),
            (2, 40 * BLOCK),
            (4, 2048, 2048),
        ]
    )
)
def test_the_sample_is_spread_over_the_tensor_and_large_enough(shape: tuple[int, ...]) -> None:
    pieces = {piece.start: piece.rows * piece.columns for piece in cut("w", shape, whole=False)}
    starts, every = list(pieces), sample("w", shape)
    assert every <= set(starts)
    measured = sum(pieces[start] for start in every)
    assert measured >= min(AT_LEAST // 2, math.prod(shape))
    assert math.prod(shape) >= 2 * AT_LEAST or every == set(starts)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        assert len(shape) != 2 or sample(name, shape) == set(starts)
    places = sorted(starts.index(start) for start in every)
    assert all(later - earlier <= SAMPLE for earlier, later in pairwise(places))
