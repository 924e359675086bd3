"""Between the bytes of a file and arrays to compute with; numpy alone, which starts much faster than torch.

bfloat16, which numpy lacks, is the upper half of a float32.
"""

from typing import Any, TypeAlias

import numpy as np

Numbers: TypeAlias = np.ndarray[Any, np.dtype[Any]]

STORED = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16,
    "I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8,
    "U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8, "BOOL": np.bool_,
}  # fmt: skip
"""What each safetensors dtype is read as; others are quantised and cannot be merged."""

INFINITY = {"BF16": 0x7F80, "F16": 0x7C00, "F32": 0x7F800000, "F64": 0x7FF0000000000000}
"""The bit pattern, without its sign, from which on a number is infinite or NaN."""


BITS = {size: (np.dtype(f"i{size}"), np.dtype(f"u{size}")) for size in (2, 4, 8)}
"""Integers of a number's size, by its bytes: signed and unsigned."""


def as_bytes(numbers: Numbers) -> memoryview:
    """See the bytes of a contiguous array, without copying."""
    # an empty buffer cannot be cast
    return memoryview(numbers.data).cast("B") if numbers.size else memoryview(b"")


def compute_dtype(dtype: str) -> type[np.floating[Any]]:
    """Return what a tensor of this output dtype is computed in, so that rounding to it happens once."""
    return np.float32 if dtype in ("BF16", "F16") else np.float64


def decode(raw: Numbers, dtype: str, compute: type[np.floating[Any]]) -> Numbers:
    """Turn the stored numbers of a floating dtype into `compute`, exactly."""
    if dtype != "BF16":
        return raw.astype(compute)
    bits = np.left_shift(raw, np.uint32(16), dtype=np.uint32, casting="unsafe")
    return bits.view(np.float32).astype(compute, copy=False)


def encode(values: Numbers, dtype: str) -> Numbers:
    """Round a flat array of float32 or float64 once, to nearest even, to the stored numbers of `dtype`."""
    with np.errstate(over="ignore"):  # whoever calls looks for infinities
        if dtype != "BF16":
            return values.astype(STORED[dtype])
        single = _single(values)
    if np.isnan(single).any():  # CUDA's has all bits set: a carry would make it zero
        single = np.where(np.isnan(single), np.float32(np.nan), single)
    bits = single.view(np.uint32)
    rounding = bits >> np.uint32(16)
    rounding &= np.uint32(1)
    rounding += np.uint32(0x7FFF)
    rounding += bits
    return np.ascontiguousarray(rounding.view(np.uint16)[1::2])  # the upper halves, little-endian


def _single(values: Numbers) -> Numbers:
    """Convert to float32 such that rounding that to bfloat16 equals rounding `values` directly.

    Only a float32 that lies exactly between two bfloat16 can mislead: it moves back to the side it came from.
    """
    single = np.ascontiguousarray(values, dtype=np.float32)
    if values.dtype == np.float64:
        bits = single.view(np.uint32)
        middle = (bits & np.uint32(0xFFFF)) == 0x8000
        if middle.any():
            exact, rounded = np.abs(values[middle]), np.abs(single[middle])
            bits[middle] += (exact > rounded).astype(np.uint32) - (exact < rounded).astype(np.uint32)
    return single


def all_finite(raw: Numbers, dtype: str) -> bool:
    """Tell whether stored numbers contain neither NaN nor infinity."""
    if not raw.size:
        return True
    # Of bits read as signed integers the largest is that of a positive number, if there is one; read as
    # unsigned, that of a negative one. Two reductions need no array for the magnitudes.
    (signed, unsigned), infinity = BITS[raw.itemsize], INFINITY[dtype]
    positive = np.maximum.reduce(raw.view(signed), axis=None)
    negative = np.maximum.reduce(raw.view(unsigned), axis=None)
    return bool(positive < infinity and negative < (1 << (8 * raw.itemsize - 1)) + infinity)
