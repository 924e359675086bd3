"""Leading eigenpairs are those of a full decomposition, packed matrices are numpy's; on any number of threads."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.merging.lore.lapack import (
    EigenPairs,
    PackedTriangle,
    eigenpairs_above,
    leading_eigenpairs,
    packed_diagonal,
)
from tests.support.lore_checks import DTYPES, on_devices
from tests.support.lore_matrices import SPECTRA
from tests.support.lore_reference import Array

on_dtypes = pytest.mark.parametrize("dtype", DTYPES)


def gram(n: int, seed: int, spectrum: str = "power law", rows: int | None = None) -> Array:
    A = SPECTRA[spectrum](np.random.default_rng(seed), rows or 2 * n, n)
    found: Array = A.T @ A
    return found


def copy(G: Array, dtype: torch.dtype, device: str = "cpu") -> torch.Tensor:
    return torch.from_numpy(G).to(device, dtype, copy=True)


def check(found: EigenPairs, G: Array, count: int, dtype: torch.dtype) -> None:
    """Hold pairs to scipy's and to what makes them eigenpairs."""
    values, vectors = (part.double().cpu().numpy() for part in found)
    assert found.values.dtype == found.vectors.dtype == dtype
    assert vectors.shape == (len(G), count)
    rounding = 50 * torch.finfo(dtype).eps * max(float(np.linalg.norm(G, 2)), 1e-300)
    np.testing.assert_allclose(values, scipy.linalg.eigh(G)[0][::-1][:count], atol=rounding)
    np.testing.assert_allclose(G @ vectors, vectors * values, atol=rounding)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(count), atol=200 * torch.finfo(dtype).eps)


@given(
    spectrum=st.sampled_from(["power law", "spikes", "low rank", "flat"]),
    n=st.integers(1, 30),
    seed=st.integers(0, 99),
    count=st.integers(0, 30),
    expected=st.integers(0, 30),
    dtype=st.sampled_from(DTYPES),
)
@settings(max_examples=60, deadline=None)
def test_pairs_above_a_limit_are_the_leading_ones_of_scipy(
    spectrum: str, n: int, seed: int, count: int, expected: int, dtype: torch.dtype
) -> None:
    """However many were expected; the limit lies in a gap that rounding cannot bridge."""
    G = copy(gram(n, seed, spectrum), dtype).double().numpy()
    values = np.append(scipy.linalg.eigvalsh(G)[::-1], 0.0)
    count = min(count, n)
    above = values[count - 1] if count else 2 * values[0]
    if above - values[count] < 1e-4 * values[0]:
        return
    check(eigenpairs_above(copy(G, dtype), (above + values[count]) / 2, expected), G, count, dtype)


@on_devices
@on_dtypes
@pytest.mark.parametrize("n", [1, 2, 40])
@pytest.mark.parametrize("count", [0, 1, 2, 40])
def test_the_largest_are_those_of_scipy(n: int, count: int, dtype: torch.dtype, device: str) -> None:
    G = copy(gram(n, 1), dtype).double().numpy()
    if 0 < count <= n:
        check(leading_eigenpairs(copy(G, dtype, device), count), G, count, dtype)


@on_devices
@on_dtypes
@pytest.mark.parametrize("expected", [0, 40])
@pytest.mark.parametrize("n", [1, 2, 40])
def test_none_and_all_lie_above_a_limit(n: int, expected: int, dtype: torch.dtype, device: str) -> None:
    G = copy(gram(n, 2), dtype).double().numpy()
    largest = float(np.linalg.norm(G, 2))
    for limit, count in ((1.01 * largest, 0), (10 * largest, 0), (-largest, n)):
        check(eigenpairs_above(copy(G, dtype, device), limit, expected), G, count, dtype)


@on_dtypes
@pytest.mark.parametrize("expected", [0, 10])
def test_what_equals_the_limit_does_not_exceed_it(expected: int, dtype: torch.dtype) -> None:
    """Of a diagonal matrix, whose eigenvalues are exact."""
    G = np.diag([8.0, 4.0, 4.0, 2.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    assert eigenpairs_above(copy(G, dtype), 4.0, expected).values.tolist() == [8.0]
    assert eigenpairs_above(copy(G, dtype), np.nextafter(np.float32(4), 0), expected).values.tolist() == [
        8.0,
        4.0,
        4.0,
    ]


@on_dtypes
@pytest.mark.parametrize("expected", [0, 40])
def test_nothing_but_zeros(expected: int, dtype: torch.dtype) -> None:
    zero = np.zeros((40, 40))
    check(eigenpairs_above(copy(zero, dtype), 0.0, expected), zero, 0, dtype)
    check(eigenpairs_above(copy(zero, dtype), -1.0, expected), zero, 40, dtype)
    check(leading_eigenpairs(copy(zero, dtype), 3), zero, 3, dtype)


@on_dtypes
@pytest.mark.parametrize("way", [lambda G: eigenpairs_above(G, 1e-3, 1), lambda G: leading_eigenpairs(G, 9)])
def test_threads_find_at_the_same_time_what_one_finds(
    way: Callable[[torch.Tensor], EigenPairs], dtype: torch.dtype
) -> None:
    matrices = [gram(90, seed) for seed in range(8)]
    alone = [way(copy(G, dtype)) for G in matrices]
    together = threading.Barrier(2)

    def find(half: int) -> list[EigenPairs]:
        together.wait()
        return [way(copy(G, dtype)) for G in matrices[half::2]]

    with ThreadPoolExecutor(2) as pool:
        halves = list(pool.map(find, range(2)))
    for i, (values, vectors) in enumerate(alone):
        assert torch.equal(halves[i % 2][i // 2].values, values)
        assert torch.equal(halves[i % 2][i // 2].vectors, vectors)


def decompose() -> None:
    leading_eigenpairs(copy(gram(900, 0, rows=900), torch.float64), 60)


def factor() -> None:
    W = torch.from_numpy(np.random.default_rng(0).standard_normal((1500, 1500)))
    rest = PackedTriangle(1500, 1e4, W)
    rest.subtract_product(W)
    assert rest.factor()


@pytest.mark.parametrize("work", [decompose, factor])
def test_the_interpreter_goes_on_while_lapack_works(work: Callable[[], None]) -> None:
    """Another thread is never kept from counting for long: what holds the interpreter's lock would do that."""
    work()  # finds the routines
    started, done, longest = threading.Event(), threading.Event(), [0.0]

    def count() -> None:
        before = time.monotonic()
        started.set()
        while not done.is_set():
            now = time.monotonic()
            longest[0], before = max(longest[0], now - before), now

    thread = threading.Thread(target=count)
    thread.start()
    started.wait()
    begun = time.monotonic()
    work()
    took = time.monotonic() - begun
    done.set()
    thread.join()
    assert longest[0] < took / 2


@on_dtypes
@given(
    n=st.integers(1, 30),
    rows=st.lists(st.integers(0, 20), max_size=3),
    seed=st.integers(0, 99),
    share=st.floats(0.5, 1.5).filter(lambda share: abs(share - 1) > 0.01),
)
@settings(max_examples=60, deadline=None)
def test_a_packed_triangle_has_a_factor_where_products_leave_it_definite(
    dtype: torch.dtype, n: int, rows: list[int], seed: int, share: float
) -> None:
    blocks = [np.random.default_rng((seed, i)).standard_normal((count, n)) for i, count in enumerate(rows)]
    largest = float(np.linalg.norm(np.concatenate([np.zeros((1, n)), *blocks]), 2)) ** 2
    rest = PackedTriangle(n, share * largest or share - 1, torch.zeros(0, dtype=dtype))
    for block in blocks:
        rest.subtract_product(copy(block, dtype))
    assert rest.factor() == (share > 1)


@pytest.mark.parametrize("n", range(1, 9))
def test_the_packed_diagonal_is_where_lapack_has_it(n: int) -> None:
    packed, _ = scipy.linalg.lapack.dtrttf(np.diag(np.arange(1.0, n + 1)))
    assert sorted(np.asarray(packed)[packed_diagonal(n).numpy()]) == list(range(1, n + 1))
