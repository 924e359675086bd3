"""Krylov subspaces find every triplet above the threshold, and say when there are too many."""

import numpy as np
import pytest
import torch

from tasks.merging.lore.algebra import gaussian
from tasks.merging.lore.krylov import Start, enlarged, leading_triplets
from tasks.merging.lore.penalty import Scale
from tasks.merging.lore.problem import Unproven
from tasks.merging.lore.ritz import Triplets, times
from tests.support.lore_checks import DTYPES, on_devices
from tests.support.lore_factors import factors
from tests.support.lore_matrices import family, low_rank, with_spectrum
from tests.support.lore_reference import Array, deviations, noise_edge

SHAPE = (260, 200)


def find(
    B: Array, mu: float, unit: str = "noise_edge", dtype: torch.dtype = torch.float64, device: str = "cpu"
) -> Start | None:
    scale = Scale(mu, unit, "nuclear", (B.shape[1], B.shape[2]))  # type: ignore[arg-type]
    return leading_triplets(torch.from_numpy(B).to(device, dtype), float(np.sum(B**2)), scale, 1e-4)


def agree(found: Triplets, B: Array, count: int, accuracy: float) -> None:
    """Hold the first triplets of each to numpy's: values, and the sines of the angles of both subspaces."""
    for b, U, sigma, V in zip(B, *(part.double().cpu().numpy() for part in found), strict=True):
        exact_U, exact, exact_Vt = np.linalg.svd(b, full_matrices=False)
        np.testing.assert_allclose(sigma[:count], exact[:count], rtol=accuracy)
        for mine, theirs in ((U[:, :count], exact_U[:, :count]), (V[:, :count], exact_Vt[:count].T)):
            assert np.linalg.norm(mine - theirs @ (theirs.T @ mine), 2) < accuracy**0.5
            np.testing.assert_allclose(mine.T @ mine, np.eye(count), atol=10 * accuracy)


@on_devices
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("N", [1, 3])
def test_spikes_over_noise(dtype: torch.dtype, N: int, device: str) -> None:
    rng = np.random.default_rng(0)
    heights = np.array([200.0, 150.0, 90.0, 70.0, *[0.0] * 196])
    B = np.stack([rng.standard_normal(SHAPE) + with_spectrum(rng, *SHAPE, heights) for _ in range(N)])
    start = find(B, 1.05, dtype=dtype, device=device)
    assert start is not None
    assert start.edge == pytest.approx(noise_edge(B), rel=3e-3)
    assert start.penalty.mu == pytest.approx(1.05 * noise_edge(B), rel=3e-3)
    agree(start.triplets, B, 4, 1e-5)
    assert start.triplets.sigma.shape[0] == N
    assert start.triplets.sigma.diff(dim=1).max() <= 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_exactly_low_rank(dtype: torch.dtype) -> None:
    """Nothing is left for further blocks: they must neither be noise blown up nor NaN."""
    rng = np.random.default_rng(1)
    B = deviations([low_rank(rng, *SHAPE)[:, :3] @ rng.standard_normal((3, SHAPE[1])) for _ in range(3)])
    start = find(B, 0.2, "sigma1", dtype)
    assert start is not None
    for part in start.triplets:
        assert torch.isfinite(part).all()
    active = min(int((np.linalg.svd(b, compute_uv=False) > start.penalty.mu).sum()) for b in B)
    agree(start.triplets, B, active, 1e-5)
    assert active > 1


def test_too_many_above_the_threshold_are_given_up() -> None:
    B = family("spikes", 3, *SHAPE, 0)
    assert find(B, 0.3) is None
    assert find(B, 1.05) is not None


def test_equal_singular_values_are_all_found_or_given_up() -> None:
    """Forty equal ones, more than a few random starts could tell apart."""
    rng = np.random.default_rng(0)
    heights = np.array([100.0] * 20 + [0.0] * 180)
    B = np.stack([rng.standard_normal(SHAPE) + with_spectrum(rng, *SHAPE, heights) for _ in range(2)])
    start = find(B, 1.2)
    assert start is not None
    for sigma, b in zip(start.triplets.sigma, B, strict=True):
        exact = np.linalg.svd(b, compute_uv=False)
        assert int((sigma > start.penalty.mu).sum()) == int((exact > start.penalty.mu).sum()) == 20


def test_enlarging_finds_what_a_subspace_missed() -> None:
    B = family("spikes", 3, *SHAPE, 0)
    start = find(B, 1.05)
    assert start is not None
    z = factors(np.random.default_rng(0).standard_normal(SHAPE), mu=25.0)
    missing = Triplets(*(part[..., 1:] for part in start.triplets))
    found = enlarged(torch.from_numpy(B), missing, z, 6)
    agree(found, B - z.matrix().numpy(), 2, 1e-4)


def test_a_subspace_with_no_room_is_not_enlarged() -> None:
    B = family("spikes", 3, 20, 16, 0)
    U, sigma, Vt = np.linalg.svd(B, full_matrices=False)
    known = Triplets(*map(torch.from_numpy, (U, sigma, np.ascontiguousarray(Vt.transpose(0, 2, 1)))))
    with pytest.raises(Unproven):
        enlarged(torch.from_numpy(B), known, factors(B[0]), 6)


def test_times_multiplies_by_the_difference() -> None:
    B, z = family("spikes", 3, 9, 7, 0), factors(family("spikes", 3, 9, 7, 1)[0])
    V = np.random.default_rng(0).standard_normal((3, 7, 2))
    found = times(torch.from_numpy(B), torch.from_numpy(V), z)
    np.testing.assert_allclose(found, (B - z.matrix().numpy()) @ V, atol=1e-10)
    np.testing.assert_allclose(times(torch.from_numpy(B), torch.from_numpy(V), None), B @ V, atol=1e-10)


@on_devices
def test_random_numbers_are_always_the_same_and_leave_the_global_generator_alone(device: str) -> None:
    like = torch.zeros(1, dtype=torch.float64, device=device)
    before = torch.get_rng_state()
    first, second = gaussian(50, 40, like=like), gaussian(50, 40, like=like)
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)
    assert (first.dtype, first.device.type) == (torch.float64, device)
    assert abs(float(first.mean())) < 0.1
    assert float(first.std()) == pytest.approx(1.0, abs=0.1)
