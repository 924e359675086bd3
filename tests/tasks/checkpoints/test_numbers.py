"""Stored numbers become arrays exactly, and arrays stored numbers by one rounding to nearest even."""

import warnings
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.checkpoints.numbers import STORED, Numbers, all_finite, compute_dtype, decode, encode

pytestmark = pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # of NaN, which tests decode

TORCH = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
PATTERNS = np.arange(2**16, dtype=np.uint16)
BITS = {"F64": np.uint64, "F32": np.uint32, "F16": np.uint16, "BF16": np.uint16}


def as_torch(raw: Numbers, dtype: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(raw.tobytes()), dtype=TORCH[dtype])


def same(ours: Numbers, theirs: torch.Tensor) -> bool:
    """Equal, NaN with NaN, and zeros of one sign."""
    expected = theirs.numpy()
    return np.array_equal(ours, expected, equal_nan=True) and np.array_equal(
        np.signbit(ours)[~np.isnan(ours)], np.signbit(expected)[~np.isnan(expected)]
    )


@pytest.mark.parametrize("compute", [np.float32, np.float64])
@pytest.mark.parametrize("dtype", ["BF16", "F16"])
def test_all_16_bit_patterns_are_decoded_as_torch_does(dtype: str, compute: type) -> None:
    raw = PATTERNS.view(STORED[dtype])
    expected = as_torch(raw, dtype).to(torch.float64 if compute is np.float64 else torch.float32)
    assert decode(raw, dtype, compute).dtype == compute
    assert same(decode(raw, dtype, compute), expected)


@pytest.mark.parametrize("dtype", ["BF16", "F16"])
def test_every_16_bit_number_survives_decoding_and_encoding(dtype: str) -> None:
    raw = PATTERNS.view(STORED[dtype])
    finite = raw[np.isfinite(decode(raw, dtype, np.float32))]
    for compute in (np.float32, np.float64):
        assert np.array_equal(
            encode(decode(finite, dtype, compute), dtype).view(np.uint16), finite.view(np.uint16)
        )


@pytest.mark.parametrize("dtype", ["BF16", "F16"])
def test_all_finite_knows_every_16_bit_pattern(dtype: str) -> None:
    finite = as_torch(PATTERNS, dtype).isfinite().numpy()
    found = [all_finite(PATTERNS[i : i + 1].view(STORED[dtype]), dtype) for i in range(2**16)]
    assert np.array_equal(found, finite)


@pytest.mark.parametrize("dtype", ["F32", "F64"])
def test_all_finite_finds_one_bad_number_among_many(dtype: str) -> None:
    numbers = np.ones(1000, STORED[dtype])
    assert all_finite(numbers, dtype)
    for bad in (np.nan, np.inf, -np.inf):
        numbers[517] = bad
        assert not all_finite(numbers, dtype)


def adversarial() -> Numbers:
    """Return float32 numbers beside and upon the middles of bfloat16 and float16, every exponent, both signs."""
    upper = np.arange(0, 2**16, 7, dtype=np.uint32) << np.uint32(16)
    lower = np.array([0, 1, 0x0FFF, 0x1000, 0x1001, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    return (upper[:, None] | lower).reshape(-1).view(np.float32)


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32", "F64"])
def test_float32_is_encoded_as_torch_does(dtype: str) -> None:
    random = np.random.default_rng(0).integers(0, 2**32, 200_000, dtype=np.uint32).view(np.float32)
    for values in (adversarial(), random):
        with np.errstate(invalid="ignore"):
            ours = as_torch(encode(values, dtype), dtype)
        assert same(ours.double().numpy(), torch.from_numpy(values).to(TORCH[dtype]).double())


def nearest_even(exact: Fraction, dtype: str) -> float:
    """Round a rational to the dtype by its definition: the nearest value, of two the one with an even last bit."""
    bits, least, largest = {"BF16": (8, -133, 127), "F16": (11, -24, 15), "F32": (24, -149, 127)}[dtype]
    if exact == 0:
        return 0.0
    exponent = 0
    while abs(exact) >= Fraction(2) ** (exponent + 1):
        exponent += 1
    while abs(exact) < Fraction(2) ** exponent:
        exponent -= 1
    unit = Fraction(2) ** max(exponent - bits + 1, least)
    rounded = round(exact / unit) * unit  # Python rounds halves to even
    return (
        float(rounded) if abs(rounded) < Fraction(2) ** (largest + 1) else np.copysign(np.inf, float(exact))
    )


halves = st.tuples(
    st.sampled_from(["BF16", "F16", "F32"]),
    st.integers(0, 2**15 - 2),
    st.sampled_from([0.0, 2.0**-24, 2.0**-30, 2.0**-52, -(2.0**-24), -(2.0**-30), -(2.0**-53)]),
    st.sampled_from([1, -1]),
)


@given(case=halves)
@settings(max_examples=400)
def test_float64_is_rounded_once(case: tuple[str, int, float, int]) -> None:
    """Middles of two neighbours, and a hair beside them: a second rounding would land on the wrong side."""
    dtype, pattern, hair, sign = case
    grid = {"BF16": "BF16", "F16": "F16", "F32": "BF16"}[dtype]
    low, high = decode(np.array([pattern, pattern + 1], np.uint16).view(STORED[grid]), grid, np.float64)
    if not np.isfinite(high):
        return
    middle = (low + high) / 2 if dtype != "F32" else low * (1 + 2.0**-24)
    value = sign * middle * (1 + hair)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a number too large is the caller's to find, without noise
        stored = encode(np.array([value]), dtype)
    found = float(decode(stored, dtype, np.float64)[0])
    assert found == nearest_even(Fraction(value), dtype)


@given(values=st.lists(st.floats(width=64, allow_nan=False, allow_infinity=False), min_size=1, max_size=8))
@settings(max_examples=200)
def test_any_float64_is_rounded_once(values: list[float]) -> None:
    for dtype in ("BF16", "F16", "F32"):
        found = decode(encode(np.array(values), dtype), dtype, np.float64)
        assert found.tolist() == [nearest_even(Fraction(value), dtype) for value in values]


@pytest.mark.filterwarnings("error")
def test_what_is_too_large_becomes_infinite_in_silence() -> None:
    for dtype in ("BF16", "F16", "F32"):
        numbers = encode(np.array([1e300, -1e300, 1.0]), dtype)
        assert decode(numbers, dtype, np.float64).tolist() == [np.inf, -np.inf, 1.0]
        assert not all_finite(numbers, dtype)


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
@pytest.mark.parametrize("bits", [0x7FFFFFFF, 0xFFFFFFFF, 0x7FC00000, 0xFFC00000, 0x7F800001, 0x7FFF8000])
def test_no_nan_becomes_a_number(dtype: str, bits: int) -> None:
    """0x7FFFFFFF is the NaN that CUDA computes."""
    values = np.array([bits, 0x3F800000], np.uint32).view(np.float32)
    with np.errstate(invalid="ignore"):
        for array in (values, values.astype(np.float64)):
            assert not all_finite(encode(array, dtype), dtype)


def test_a_slice_is_encoded_as_its_copy() -> None:
    values = np.random.default_rng(1).normal(size=(7, 10)).astype(np.float32)
    for part in (values[:, 2], values.T.reshape(-1)[3:20]):
        for dtype in TORCH:
            assert np.array_equal(encode(part, dtype), encode(part.copy(), dtype))


def test_16_bit_models_are_computed_in_float32_and_others_in_float64() -> None:
    assert [compute_dtype(dtype) for dtype in ("BF16", "F16", "F32", "F64")] == [np.float32] * 2 + [
        np.float64
    ] * 2


def test_the_width_of_what_is_read_is_that_of_the_file() -> None:
    assert all(np.dtype(STORED[dtype]).itemsize == BITS[dtype]().itemsize for dtype in TORCH)
