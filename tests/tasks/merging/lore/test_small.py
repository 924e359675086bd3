"""Decompositions of long columns and small matrices are exact, whatever the condition."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.merging.lore.small import SMALL, orthonormal_basis, small_svd
from tests.support.lore_checks import DTYPES, on_devices


def columns(seed: int, count: int, k: int, worst: float) -> torch.Tensor:
    """Several times k columns of 90 numbers that depend on each other, to a condition of `worst`."""
    rng = np.random.default_rng(seed)
    U, V = (np.linalg.qr(rng.standard_normal((count, n, k)))[0] for n in (90, k))
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
    X = columns(seed, count, k, 10**digits).to(dtype)
    Q, R = orthonormal_basis(X)
    eps = torch.finfo(dtype).eps
    assert Q.dtype == R.dtype == dtype
    torch.testing.assert_close(Q.mT @ Q, torch.eye(k, dtype=dtype).expand(count, k, k), atol=30 * eps, rtol=0)
    torch.testing.assert_close(Q @ R, X, atol=30 * eps, rtol=0)
    assert torch.equal(R, R.triu())


def test_columns_of_zeros_are_made_up_for() -> None:
    X = columns(0, 2, 5, 10.0).float()
    X[1, :, 2] = 0
    Q, _ = orthonormal_basis(X)
    torch.testing.assert_close(Q.mT @ Q, torch.eye(5).expand(2, 5, 5), atol=1e-5, rtol=0)


@on_devices
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [1, 30, SMALL + 1])
@pytest.mark.parametrize("rank", [1.0, 0.5])
def test_small_matrices_are_decomposed_as_numpy_does(
    k: int, rank: float, dtype: torch.dtype, device: str
) -> None:
    """Singular ones, too."""
    rng = np.random.default_rng(k)
    R = rng.standard_normal((2, k, k))
    R[1] = R[1][:, : max(1, round(rank * k))] @ R[1][: max(1, round(rank * k))]
    given_matrix = torch.from_numpy(R).to(device, dtype)
    X, sigma, Zt = (part.double().cpu().numpy() for part in small_svd(given_matrix))
    eps = float(torch.finfo(dtype).eps)
    size = np.linalg.norm(R, 2, axis=(1, 2))[:, None]
    for part in (X, Zt):
        np.testing.assert_allclose(part.transpose(0, 2, 1) @ part, np.stack([np.eye(k)] * 2), atol=100 * eps)
    limit = float(max(100 * eps, 1e-7)) * size
    assert np.all(np.abs(sigma - np.linalg.svd(R, compute_uv=False)) <= limit)
    assert np.all(np.abs(X * sigma[:, None] @ Zt - R) <= limit[..., None])
