"""Inner products are those of float64, and the same bits from numpy and from compiled loops."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.checkpoints.numbers import compute_dtype, decode
from tasks.merging.deferred import defer
from tasks.merging.inner_products import dot, dots, gram
from tasks.merging.loop_frames import LANES
from tests.support.stored_numbers import DTYPES, numbers_of, same

SIZES = st.one_of(st.integers(0, 20), st.sampled_from([LANES - 1, LANES, LANES + 1, 3 * LANES + 7]))


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from(DTYPES), st.sampled_from(DTYPES), SIZES)
def test_a_loop_adds_up_what_numpy_adds_up(data: st.DataObject, dtype: str, output: str, size: int) -> None:
    raws = [data.draw(numbers_of(dtype, size)) for _ in range(3)]
    compute = compute_dtype(output)
    thetas = [defer(raw, dtype, compute, (size, 1)) for raw in raws]
    with np.errstate(all="ignore"):
        plain = [decode(raw, dtype, compute).reshape(size, 1) for raw in raws]
        found = gram([theta - thetas[0] for theta in thetas[1:]] + [thetas[0] * 0.1])
        expected = gram([theta - plain[0] for theta in plain[1:]] + [plain[0] * 0.1])
    same(found, expected)


@pytest.mark.parametrize("size", [0, 1, LANES, 100_003, 2**18, 2**18 + 1, 2**19 + 5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_products_are_those_of_float64(size: int, dtype: type) -> None:
    a, b = np.random.default_rng(size).normal(size=(2, size)).astype(dtype)
    products = a.astype(np.float64) * b
    bound = 1e-15 * size**0.5 * math.fsum(abs(products)) + 1e-300
    assert dots([(a, b), (a, a)]) == pytest.approx(
        [math.fsum(products), math.fsum(a.astype(np.float64) ** 2)], abs=bound, rel=1e-14
    )
    assert dot(torch.from_numpy(a), torch.from_numpy(b)) == pytest.approx(
        math.fsum(products), abs=bound, rel=1e-14
    )
    compiled = dot(
        defer(a, {4: "F32", 8: "F64"}[a.itemsize], dtype, a.shape),
        defer(b, {4: "F32", 8: "F64"}[a.itemsize], dtype, a.shape),
    )
    assert compiled == dot(a, b)


def test_equal_arrays_and_opposite_ones_have_cosines_of_one() -> None:
    a = np.random.default_rng(0).normal(size=(40, 30)).astype(np.float32)
    products = gram([a, a, -a])
    assert (abs(products) == products[0, 0]).all()
    assert (np.sign(products) == [[1, 1, -1], [1, 1, -1], [-1, -1, 1]]).all()


def test_products_beyond_float32_are_finite() -> None:
    a = np.array([3e30, 1.0, -2e30], np.float32)
    assert dot(a, a) == pytest.approx(1.3e61)
    assert gram([a, -a]) == pytest.approx(np.array([[1.3e61, -1.3e61]] * 2) * [[1, 1], [-1, -1]])
