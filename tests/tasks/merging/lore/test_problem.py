"""Factors stand for matrices."""

import numpy as np
import pytest
import torch

from tasks.merging.lore.algebra import add_up, inner
from tests.support.lore_factors import factors

A, B = np.random.default_rng(0).standard_normal((2, 7, 5))


def test_factors_are_the_matrix_its_transpose_and_its_truncation() -> None:
    found = factors(A)
    np.testing.assert_allclose(found.matrix(), A, atol=1e-12)
    np.testing.assert_allclose(found.transposed.matrix(), A.T, atol=1e-12)
    assert found.rank == 5
    U, sigma, Vt = np.linalg.svd(A, full_matrices=False)
    np.testing.assert_allclose(found.truncated(2).matrix(), (U[:, :2] * sigma[:2]) @ Vt[:2], atol=1e-12)
    assert found.truncated(9).rank == 5
    assert {part.dtype for part in found.to(torch.float32)} == {torch.float32}


def test_sums_and_products_of_factors_are_those_of_the_matrices() -> None:
    total = add_up([factors(A), factors(B)])
    np.testing.assert_allclose(total.matrix(), A + B, atol=1e-12)
    assert inner(factors(A), factors(B)) == pytest.approx(float(np.sum(A * B)))
    assert inner(total, factors(A)) == pytest.approx(float(np.sum((A + B) * A)))
    empty = factors(A, mu=100.0)
    assert empty.rank == 0
    assert inner(empty, total) == 0.0
    assert not empty.matrix().any()
