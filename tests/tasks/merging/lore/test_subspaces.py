"""Subspaces hold what is sought, of one matrix or of several at once."""

import numpy as np
import pytest
import torch

from tasks.merging.lore import subspaces
from tasks.merging.lore.algebra import Factors, Shifted, Spanned, gaussian, zero
from tasks.merging.lore.subspaces import Sought
from tests.support.lore_checks import DTYPES, on_devices
from tests.support.lore_matrices import edge, with_spectrum
from tests.support.lore_triplets import check_triplets, made

SHARP = 1e-3


@on_devices
@pytest.mark.parametrize("dtype", DTYPES)
def test_several_matrices_are_what_each_is_alone(dtype: torch.dtype, device: str) -> None:
    """Different kinds, less a common matrix, from as many triplets as happen to be known of each."""
    kinds = ("spikes", "power law", "falling", "rank one")
    own = [made(kind)[0] for kind in kinds]
    size = float(np.linalg.norm(own[0]))
    B = torch.from_numpy(np.stack([A * (size / np.linalg.norm(A)) for A in own])).to(device, dtype)
    z = Spanned(*(0.1 * size**0.5 * gaussian(*shape, like=B) for shape in ((170, 2), (2, 2), (150, 2))))
    starts = [zero(b) if i == 2 else exact(b).truncated(2 * i + 1) for i, b in enumerate(B)]
    limit = 0.2 * size

    def above(sigma: np.ndarray) -> int:
        return int((sigma > limit).sum())

    found = subspaces.leading_subspaces(Shifted(B, z), Sought(above, lambda _: SHARP * size, True), starts)
    assert found is not None
    for b, triplets in zip(B, found, strict=True):
        A = (b - z.matrix()).double().cpu().numpy()
        sigma = np.linalg.svd(A, compute_uv=False)
        assert triplets.above(limit).rank == above(sigma) > 0
        check_triplets(triplets.above(limit), A, sigma, SHARP * size)


def exact(A: torch.Tensor) -> Factors:
    U, sigma, Vt = torch.linalg.svd(A, full_matrices=False)
    return Factors(U, sigma, Vt.T)


def test_ritz_triplets_of_an_invariant_subspace_are_the_triplets_of_the_matrix() -> None:
    A, sigma = made("falling")
    V = np.linalg.svd(A)[2][:6].T @ np.linalg.qr(np.random.default_rng(0).standard_normal((6, 6)))[0]
    check_triplets(subspaces.ritz(torch.from_numpy(A), torch.from_numpy(V)), A, sigma, 1e-10)


def test_a_polynomial_leaves_the_strong_where_they_are_and_sharpens_the_rest() -> None:
    """Two spikes of ten edges, three of one and a half, from a random start: each round is nearer."""
    rng = np.random.default_rng(0)
    heights = edge(170, 150) * np.array([10.0, 10.0, 1.5, 1.5, 1.5])
    A = rng.standard_normal((170, 150)) + with_spectrum(rng, 170, 150, np.append(heights, np.zeros(145)))
    exact = np.linalg.svd(A)[2][:5].T
    given_matrix = torch.from_numpy(A)
    found = subspaces.ritz(given_matrix, torch.linalg.qr(gaussian(150, 20, like=given_matrix)).Q)
    lost = []
    for _ in range(6):
        below = found.sigma[-1:]
        strong = found.above(subspaces.STRONG * float(below)).rank
        V = subspaces.filtered(given_matrix, found.V, [strong], below)
        np.testing.assert_allclose(V.T @ V, np.eye(V.shape[1]), atol=1e-12)
        lost.append(np.linalg.norm(exact - V.numpy() @ (V.numpy().T @ exact)))
        found = subspaces.ritz(given_matrix, V)
    assert lost == sorted(lost, reverse=True)
    assert lost[-1] < 1e-3 * lost[0]


def test_widened_subspaces_hold_the_old_one() -> None:
    V = torch.linalg.qr(gaussian(30, 4, like=torch.zeros(1, dtype=torch.float64))).Q
    wide = subspaces.widened(V, 9)
    assert wide.shape == (30, 9)
    np.testing.assert_allclose(wide.T @ wide, np.eye(9), atol=1e-12)
    np.testing.assert_allclose(wide @ (wide.T @ V), V, atol=1e-12)
    assert subspaces.widened(V, 3) is V
