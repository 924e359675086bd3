"""Factors stand for matrices; sums and products are those of numpy."""

import numpy as np
import pytest
import torch

from tasks.merging.lore.algebra import add_up, energy, gaussian, gram_matrix, inner, precise, row_dot
from tests.support.lore_checks import on_devices
from tests.support.lore_factors import factors
from tests.support.lore_matrices import family
from tests.support.lore_reference import svt

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


@pytest.mark.parametrize("mu", [0.0, 1.0, 2.0, 100.0])
def test_thresholding_is_that_of_the_singular_values(mu: float) -> None:
    found = factors(A)
    np.testing.assert_allclose(found.thresholded(mu).matrix(), svt(A, mu), atol=1e-12)
    assert found.above(mu).rank == np.sum(np.linalg.svd(A, compute_uv=False) > mu)


def test_thresholding_above_a_level_takes_off_less_than_the_level() -> None:
    U, sigma, Vt = np.linalg.svd(A, full_matrices=False)
    level, mu = (sigma[1] + sigma[2]) / 2, 0.3 * sigma[2]
    expected = (U[:, :2] * (sigma[:2] - mu)) @ Vt[:2]
    np.testing.assert_allclose(factors(A).thresholded(mu, level).matrix(), expected, atol=1e-12)


@on_devices
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_energy_and_products_are_those_of_numpy(dtype: torch.dtype, device: str) -> None:
    B = torch.from_numpy(family("power law", 3, 50, 40, 0)).to(device, dtype)
    exact = B.double().cpu().numpy()
    rounding = 100 * torch.finfo(dtype).eps
    assert energy(B) == pytest.approx(np.sum(exact**2), rel=rounding)
    assert energy(B.mT) == pytest.approx(np.sum(exact**2), rel=rounding)
    assert row_dot(B[0], B[1]) == pytest.approx(float(np.sum(exact[0] * exact[1])), abs=rounding)
    for given in (B[0], B[0].T):
        np.testing.assert_allclose(
            gram_matrix(given).double().cpu(),
            given.double().cpu().numpy().T @ given.double().cpu().numpy(),
            atol=rounding,
        )


def test_float32_deviations_sum_to_zero_in_float64_once_precise() -> None:
    single = torch.from_numpy(family("spikes", 5, 30, 20, 0)).float()
    doubled = precise(single)
    size = single.double().abs().max()
    assert single.double().sum(0).abs().max() > 1e-10 * size  # or there would be nothing to do
    assert doubled.sum(0).abs().max() < 1e-14 * size
    assert (doubled - single.double()).abs().max() < 1e-6 * size


def test_random_numbers_are_normal_and_the_same_on_every_call() -> None:
    like = torch.zeros(1, dtype=torch.float64)
    found = gaussian(200, 100, like=like)
    assert torch.equal(found, gaussian(200, 100, like=like))
    assert abs(float(found.mean())) < 0.03
    assert float(found.std()) == pytest.approx(1.0, abs=0.03)
