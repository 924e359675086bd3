"""Stored numbers of every floating dtype, with the edges of each; and bit by bit comparison."""

from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as array_of

from tasks.checkpoints.numbers import STORED, Numbers, decode

DTYPES = ("BF16", "F16", "F32", "F64")
BITS = {"BF16": np.uint16, "F16": np.uint16, "F32": np.uint32, "F64": np.uint64}
EDGES = {
    "BF16": [0, 0x8000, 1, 0x8001, 0x7F, 0x80, 0x7F7F, 0xFF7F, 0x3F80, 0x3F81],
    "F16": [0, 0x8000, 1, 0x8001, 0x3FF, 0x400, 0x7BFF, 0xFBFF, 0x3C00, 0x3C01],
    "F32": [0, 1 << 31, 1, 0x7FFFFF, 0x800000, 0x7F7FFFFF, 0xFF7FFFFF, 0x3F808000, 0x3F818000],
    "F64": [0, 1 << 63, 1, 0x7FEFFFFFFFFFFFFF, 0x3810000000000000, 0x47EFFFFFF0000000, 0x3FF0101010000000],
}
"""Zeros, subnormals, the largest, and what lies between two numbers of a narrower dtype."""


def numbers_of(dtype: str, size: int) -> st.SearchStrategy[Numbers]:
    """Any finite stored numbers, the edges often."""
    width = BITS[dtype]
    patterns = st.one_of(st.sampled_from(EDGES[dtype]), st.integers(0, int(np.iinfo(width).max)))
    return array_of(width, size, elements=patterns).map(lambda raw: finite(raw, dtype))


def finite(raw: Numbers, dtype: str) -> Numbers:
    values = raw.view(STORED[dtype])
    with np.errstate(invalid="ignore"):
        return np.where(np.isfinite(decode(values, dtype, np.float64)), values, values.dtype.type(0))


def same(found: Any, expected: Any) -> None:
    """Bit by bit: zeros have signs, and only a NaN may be any other."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    if found.dtype.kind == "f":
        np.testing.assert_array_equal(np.signbit(found[found == 0]), np.signbit(expected[expected == 0]))
