"""A basis is orthonormal and holds its columns, however they lie; singular values by LAPACK are the reference."""

from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.merging.orthonormal import orthonormal

EQUAL = np.outer(np.arange(1.0, 31.0), np.ones(4))
CASES = {
    "one column": np.arange(1.0, 9.0)[:, None],
    "equal columns": EQUAL,
    "a zero column": EQUAL * [0, 1, 1, 1] + np.eye(30, 4) * [0, 1, 2, 3],
    "all zero": np.zeros((30, 4)),
    "more columns than rows": np.arange(1.0, 29.0).reshape(4, 7) ** 0.5,
    "lengths far apart": np.random.default_rng(1).normal(size=(30, 4)) * [1e-12, 1, 1e9, 1e-5],
    "too large to be squared": np.random.default_rng(2).normal(size=(30, 4)) * 1e200,
    "too small to be squared": np.random.default_rng(3).normal(size=(30, 4)) * 1e-200,
    "lost when squared": np.random.default_rng(4).normal(size=(30, 4)) * 1e-160,
}


def check(columns: np.ndarray) -> None:
    basis, R = orthonormal(columns)
    Q = basis.matrix
    np.testing.assert_allclose(basis.times(R[:, :1]), Q @ R[:, :1], atol=1e-12 * np.abs(columns).max())
    np.testing.assert_allclose(Q.T @ Q, np.eye(Q.shape[1]), atol=1e-12)
    lengths = np.abs(columns).max(axis=0)  # a column's error is measured by its own length
    assert (np.abs(Q @ R - columns) <= 1e-12 * lengths).all()
    sigma = np.linalg.svd(columns, compute_uv=False)
    np.testing.assert_allclose(np.linalg.svd(R, compute_uv=False), sigma, atol=1e-12 * sigma.max())


@pytest.mark.parametrize("columns", CASES.values(), ids=CASES.keys())
@pytest.mark.filterwarnings("error")
def test_columns_that_a_gram_matrix_may_not_carry(columns: np.ndarray) -> None:
    check(columns)
    check(np.asfortranarray(columns))


@given(st.integers(1, 40), st.integers(1, 8), st.floats(0, 16), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_columns_of_every_condition(m: int, k: int, digits: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    P, _ = np.linalg.qr(random.normal(size=(m, min(m, k))))
    Q, _ = np.linalg.qr(random.normal(size=(k, k)))
    check(P * np.logspace(0, -digits, P.shape[1]) @ Q[: P.shape[1]])


def test_trained_factors_need_no_reflections() -> None:
    """Factors of three checkpoints of one run share most of their directions: a condition of a thousand."""
    random = np.random.default_rng(0)
    first = random.normal(size=(200, 4))
    columns = np.hstack([first + 0.003 * step * random.normal(size=first.shape) for step in range(3)])
    assert 500 < np.linalg.cond(columns) < 5000
    with mock.patch.object(np.linalg, "qr", side_effect=AssertionError("reflections")):
        orthonormal(columns)
    check(columns)
