"""A compiled loop gives the bits that numpy gives step by step, whatever the numbers, and both those of float64."""

import gc
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as array_of

from tasks.checkpoints.numbers import STORED, Numbers, compute_dtype, decode, encode
from tasks.merging import combine
from tasks.merging.block import Block
from tasks.merging.deferred import Deferred, defer
from tasks.merging.deviation import deviation
from tasks.merging.loop_frames import NOTED
from tasks.merging.magnitude import UPPER, Cut, Place, _mask, _under
from tasks.merging.tallies import bits, tally
from tasks.parameters.merge import MergeParams
from tests.support.stored_numbers import DTYPES, EDGES, numbers_of, same


def average(thetas: Sequence[Any]) -> Any:
    return 0.0 + combine.mean([1.0, 0.3, 2.0], thetas, MergeParams())


def arithmetic(thetas: Sequence[Any]) -> Any:
    block = Block("x", 0, 0, thetas[1:], thetas[0])
    return block.anchor + 0.7 * combine.total([1.0, 1.0], block.deltas, MergeParams())


def elected(thetas: Sequence[Any]) -> Any:
    block = Block("x", 0, 0, thetas[1:], thetas[0])
    masked = [delta * _mask(bits(delta), Cut(0x3A000000, 0)) for delta in block.deltas]
    return block.anchor + combine.elected([1.0, 0.5], masked, MergeParams())


def dropped(thetas: Sequence[Any]) -> Any:
    kept = thetas[0] * (np.arange(thetas[0].size).reshape(thetas[0].shape) % 3 > 0)
    kept /= 1 - 0.25
    return kept - thetas[1]


def strong(thetas: Sequence[Any]) -> Any:
    return thetas[0] + np.float64(0.1) * thetas[1] - -thetas[2]  # a number of numpy makes it float64


FORMS = [average, arithmetic, elected, dropped, strong]


@settings(max_examples=120, deadline=None)
@given(
    st.data(), st.sampled_from(DTYPES), st.sampled_from(DTYPES), st.integers(0, 70), st.sampled_from(FORMS)
)
def test_a_loop_gives_what_numpy_gives_step_by_step(
    data: st.DataObject, dtype: str, output: str, size: int, form: Callable[..., Any]
) -> None:
    raws = [data.draw(numbers_of(dtype, size)) for _ in range(3)]
    thetas = [defer(raw, dtype, compute_dtype(output), (1, size)) for raw in raws]
    with np.errstate(all="ignore"):
        found = form(thetas)
        expected = form([decode(raw, dtype, compute_dtype(output)).reshape(1, size) for raw in raws])
        assert isinstance(found, Deferred)
        assert found.dtype == expected.dtype
        same(found.numpy(), expected)
        same(rounded(found, output), encode(expected.reshape(-1), output))


TO_TORCH = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


@example(np.array([0x7F7F7FFF, 0x7F7F8000, 0x477FEFFF, 0x477FF000], np.uint32))  # the edges of infinity
@example(np.array([0x00007FFF, 0x00008000, 0x00018000, 0x33000000, 0x33000001], np.uint32))  # of zero
@settings(max_examples=60, deadline=None)
@given(array_of(np.uint32, st.integers(1, 40)))
def test_numbers_are_rounded_once_to_the_nearest(pattern: Numbers) -> None:
    """As torch rounds them from float64; NaN and infinity included, which the output refuses afterwards."""
    raw = pattern.view(np.float32)
    for dtype, kind in TO_TORCH.items():
        expected = torch.from_numpy(raw.astype(np.float64)).to(kind)
        found = rounded(defer(raw, "F32", compute_dtype(dtype), raw.shape) * 1.0, dtype)
        values = decode(found, dtype, np.float64)
        np.testing.assert_array_equal(values, expected.to(torch.float64).numpy())
        same(np.signbit(values[values == 0]), np.signbit(expected.to(torch.float64).numpy()[values == 0]))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("first", [0, 1, 3])
def test_parts_of_arrays_and_odd_sizes_give_what_the_whole_gives(dtype: str, first: int) -> None:
    raw = encode(np.random.default_rng(0).normal(size=1001), dtype)
    odd = np.frombuffer(b"?" * first + raw[first:].tobytes(), np.uint8)[first:].view(raw.dtype)  # not aligned
    for part in (raw[first:], raw[first::7], odd):
        found = defer(part, dtype, np.float64, part.shape) * 3.0
        same(found.numpy(), decode(np.ascontiguousarray(part), dtype, np.float64) * 3.0)


@pytest.mark.parametrize("dtype", ["BF16", "F16"])
def test_what_overflows_is_infinite_and_what_is_undefined_is_the_one_nan(dtype: str) -> None:
    largest = np.array([EDGES[dtype][6], EDGES[dtype][7]], np.uint16).view(STORED[dtype])
    one, plain = defer(largest, dtype, np.float32, (2,)), decode(largest, dtype, np.float32)
    with np.errstate(all="ignore"):
        same(rounded(one + one, dtype), encode(plain + plain, dtype))
        same(rounded(one * 1e39 - one * 1e39, dtype), encode(plain * 1e39 - plain * 1e39, dtype))


@settings(max_examples=40, deadline=None)
@given(st.data(), st.sampled_from(DTYPES), st.integers(1, 300))
def test_tallies_count_what_numpy_counts(data: st.DataObject, dtype: str, size: int) -> None:
    raws = [data.draw(numbers_of(dtype, size)) for _ in range(2)]
    with np.errstate(all="ignore"):
        deferred, plain = (
            minuend - subtrahend
            for minuend, subtrahend in (
                [defer(raw, dtype, np.float32, (size, 1)) for raw in raws],
                [decode(raw, dtype, np.float32).reshape(size, 1) for raw in raws],
            )
        )
        for found, expected in zip(
            tally(bits(deferred) >> 16, UPPER), tally(bits(plain) >> 16, UPPER), strict=True
        ):
            same(found, expected)
        [upper, *_] = tally(bits(plain) >> 16, UPPER)[0]
        [found], [expected] = (_under(own, [Place(int(upper), 1)]) for own in (deferred, plain))
        same(found[0], expected[0])
        same(found[1], expected[1])


@pytest.mark.parametrize("size", [NOTED - 1, NOTED, NOTED + 1, 3 * NOTED + 5])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.6, 1.0])
def test_tallies_count_in_every_chunk(size: int, share: float) -> None:
    """Neighbours that are equal, elements that are not counted, and chunks with none that is."""
    noise = np.random.default_rng(size)
    raw = np.where(noise.random(size) < share, 0x3F80, noise.integers(0x3000, 0x3100, size)).astype(np.uint16)
    deferred, plain = bits(defer(raw, "BF16", np.float32, (size,))), bits(decode(raw, "BF16", np.float32))
    counted = [
        (tally(deferred >> 16, UPPER), plain >> 16),
        (
            tally(deferred >> 8 & 0xFFFF, 2**16, deferred == 0x3F800000),
            (plain >> 8 & 0xFFFF)[plain == 0x3F800000],
        ),
    ]
    for (values, times), expected in counted:
        unique, counts = np.unique(expected, return_counts=True)
        assert (values.tolist(), times.tolist()) == (unique.tolist(), counts.tolist())


def test_what_no_loop_can_do_numpy_does() -> None:
    raw = np.arange(12, dtype=np.float32)
    theta = defer(raw, "F32", np.float32, (3, 4))
    plain = raw.reshape(3, 4)
    columns = np.arange(4.0, dtype=np.float32)
    same(theta * columns, plain * columns)  # broadcast
    same(np.sort(theta, axis=0), plain)
    same(np.minimum(theta, plain[::-1]), np.minimum(plain, plain[::-1]))
    same(theta.sum(axis=0), plain.sum(axis=0))
    same(theta[1:, ::2], plain[1:, ::2])
    same(theta.astype(np.int64), plain.astype(np.int64))
    same(np.linalg.norm(theta), np.linalg.norm(plain))
    out = np.zeros_like(plain)
    np.add(theta, 1, out=out)
    same(out, plain + 1)
    assert len(theta) == 3


@example([0.1, 0.2])
@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=2))
def test_constants_are_rounded_as_numpy_rounds_them(constants: list[float]) -> None:
    raw = np.linspace(-1, 1, 33, dtype=np.float32)
    theta = defer(raw, "F32", np.float32, raw.shape)
    found, expected = (own * constants[0] + constants[1] > 0.3 for own in (theta, raw))
    same(found.numpy(), expected)


def test_arrays_go_when_their_expression_does() -> None:
    """Not when the garbage collector happens to run: thousands of blocks would lie about by then."""
    gc.disable()
    try:
        raw = np.ones(100, np.uint16)
        gone = weakref.ref(raw)
        theta = defer(raw, "BF16", np.float32, (100, 1))
        block = Block("x", 0, 0, [theta, theta * 2.0], None)
        deviation(block)
        rounded(average([theta, block.mean, theta]), "BF16")
        del raw, theta, block
        assert gone() is None
    finally:
        gc.enable()


def rounded(found: Deferred, dtype: str) -> Numbers:
    numbers = found.rounded(dtype, np.empty(found.size, STORED[dtype]))
    return encode(found.numpy().reshape(-1), dtype) if numbers is None else numbers
