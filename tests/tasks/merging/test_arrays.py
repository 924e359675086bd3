"""The functions that numpy arrays and torch tensors do not share give the same for both."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from tasks.merging.arrays import factors, sums

KINDS = pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
Kind = Callable[[np.ndarray], Any]


@KINDS
@pytest.mark.parametrize("axis", [0, 1])
def test_sums_are_added_up_in_float64(kind: Kind, axis: int) -> None:
    """In float32 2²⁵ + 1 is 2²⁵."""
    array = np.ones((40, 40), np.float32)
    array[0, 0] = 2**25
    expected = np.full(40, 40.0)
    expected[0] = 2**25 + 39
    found = sums(kind(array), axis)
    assert isinstance(found, np.ndarray)
    np.testing.assert_array_equal(found, expected)


@KINDS
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_factors_keep_the_dtype_of_what_they_multiply(kind: Kind, dtype: type) -> None:
    other = kind(np.ones((2, 3), dtype))
    product = factors(np.array([0.5, 1.0, 2.0]), other) * other
    assert type(product) is type(other)
    assert product.dtype == other.dtype
    np.testing.assert_array_equal(np.asarray(product), [[0.5, 1, 2]] * 2)
