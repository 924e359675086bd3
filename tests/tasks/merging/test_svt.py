"""SVT equals the full SVD's; the noise edge is where noise ends."""

import lore_reference as reference
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.merging.svt import noise_edge, spectrum, svt


@given(m=st.integers(1, 20), n=st.integers(1, 20), mu=st.floats(0.01, 5), seed=st.integers(0, 9))
@settings(max_examples=60)
def test_svt_equals_the_full_svd(m: int, n: int, mu: float, seed: int) -> None:
    A = np.random.default_rng(seed).standard_normal((max(m, n), min(m, n)))
    shrunk = svt(torch.from_numpy(A), mu)
    expected = reference.svt(A, mu)
    sigma = np.linalg.svd(A, compute_uv=False)
    np.testing.assert_allclose(shrunk.matrix.numpy(), expected, atol=1e-9)
    assert shrunk.nuclear == pytest.approx(np.maximum(sigma - mu, 0).sum(), abs=1e-9)
    assert shrunk.rank == (sigma > mu).sum()


@pytest.mark.parametrize("matrix", [np.zeros((4, 3)), np.ones((5, 2)), np.diag([1e8, 1.0, 1e-8])])
def test_rank_deficient_and_ill_conditioned_matrices(matrix: np.ndarray) -> None:
    np.testing.assert_allclose(
        svt(torch.from_numpy(matrix), 0.5).matrix.numpy(), reference.svt(matrix, 0.5), rtol=1e-7, atol=1e-7
    )


def test_svt_of_a_vector_is_a_soft_threshold_of_its_length() -> None:
    v = torch.tensor([[3.0], [4.0]], dtype=torch.float64)
    torch.testing.assert_close(svt(v, 2.0).matrix, v * (1 - 2 / 5))


def test_max_rank_keeps_the_largest() -> None:
    A = torch.from_numpy(np.random.default_rng(0).standard_normal((9, 6)))
    np.testing.assert_allclose(svt(A, 0.1, 2).matrix.numpy(), reference.svt(A.numpy(), 0.1, 2), atol=1e-10)


@pytest.mark.parametrize("N", [2, 3, 8])
def test_the_noise_edge_is_just_above_the_largest_singular_value_of_noise(N: int) -> None:
    """For B_i = θ_i − mean of pure noise: within 5 % of the largest singular value there is."""
    rng = np.random.default_rng(N)
    thetas = [torch.from_numpy(0.01 * rng.standard_normal((200, 120))) for _ in range(N)]
    mean = torch.stack(thetas).mean(0)
    B = [theta - mean for theta in thetas]
    largest = max(float(spectrum(b).sigma[0]) for b in B)
    assert noise_edge(B) == pytest.approx(largest, rel=0.05)


def test_spikes_do_not_raise_the_noise_edge() -> None:
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((150, 100))
    spikes = 50 * np.outer(rng.standard_normal(150), rng.standard_normal(100))
    clean = noise_edge([torch.from_numpy(noise)])
    assert noise_edge([torch.from_numpy(noise + spikes)]) == pytest.approx(clean, rel=0.02)
