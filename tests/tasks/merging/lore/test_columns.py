"""Decompositions of long columns and small matrices are exact, whatever the condition."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.merging.lore.columns import SMALL, basis_by_gram, orthonormal_basis, svd_by_gram, thin_svd
from tests.support.lore_checks import DTYPES, on_devices


def columns(seed: int, count: int, m: int, k: int, worst: float) -> torch.Tensor:
    """Several times k columns of m numbers that depend on each other, to a condition of `worst`."""
    rng = np.random.default_rng(seed)
    U, V = (np.linalg.qr(rng.standard_normal((count, n, k)))[0] for n in (m, k))
    return torch.from_numpy((U * np.geomspace(1, 1 / worst, k)) @ V.transpose(0, 2, 1))


@given(
    seed=st.integers(0, 99),
    count=st.integers(1, 3),
    k=st.integers(0, 20),
    digits=st.floats(0, 18),
    dtype=st.sampled_from(DTYPES),
)
@settings(max_examples=60, deadline=None)
def test_a_basis_is_orthonormal_and_spans_the_columns(
    seed: int, count: int, k: int, digits: float, dtype: torch.dtype
) -> None:
    """By Gram matrices, too, unless the condition is large."""
    X = columns(seed, count, 90, k, 10**digits).to(dtype)
    eps = torch.finfo(dtype).eps
    by_gram = basis_by_gram(X)
    if dtype == torch.float32 and k and digits < 4:
        assert by_gram is not None
    for Q, R in filter(None, (orthonormal_basis(X), by_gram)):
        assert Q.dtype == R.dtype == dtype
        one = torch.eye(k, dtype=dtype).expand(count, k, k)
        torch.testing.assert_close(Q.mT @ Q, one, atol=30 * eps, rtol=0)
        torch.testing.assert_close(Q @ R, X, atol=30 * eps, rtol=0)
        assert torch.equal(R, R.triu())


def test_columns_of_zeros_are_made_up_for() -> None:
    X = columns(0, 2, 90, 5, 10.0).float()
    X[1, :, 2] = 0
    Q, _ = orthonormal_basis(X)
    torch.testing.assert_close(Q.mT @ Q, torch.eye(5).expand(2, 5, 5), atol=1e-5, rtol=0)


@on_devices
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [1, 30, SMALL + 1])
@pytest.mark.parametrize("digits", [0.0, 3.0, 9.0])
def test_columns_are_decomposed_as_numpy_does(k: int, digits: float, dtype: torch.dtype, device: str) -> None:
    """Dependent ones, too, but for Gram matrices."""
    X = columns(k, 2, 2 * SMALL, k, 10**digits).to(device, dtype)
    exact, eps = X.double().cpu().numpy(), float(torch.finfo(dtype).eps)
    by_gram = svd_by_gram(X)
    assert (by_gram is not None) == (dtype == torch.float32 and (digits < 9 or k == 1))
    for found in filter(None, (thin_svd(X), by_gram)):
        Q, sigma, Zt = (part.double().cpu().numpy() for part in found)
        for own in (Q, Zt.transpose(0, 2, 1)):
            np.testing.assert_allclose(
                own.transpose(0, 2, 1) @ own, np.stack([np.eye(k)] * 2), atol=100 * eps
            )
        np.testing.assert_allclose(sigma, np.linalg.svd(exact, compute_uv=False), atol=30 * eps)
        np.testing.assert_allclose(Q * sigma[:, None] @ Zt, exact, atol=30 * eps)
