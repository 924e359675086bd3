"""The curvature is the derivative of the singular value thresholding."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.merging.lore.curvature import Curvature, in_bases, joint, shrunk
from tests.support.lore_curvature_reference import derivative
from tests.support.lore_factors import factors
from tests.support.lore_matrices import SPECTRA, family
from tests.support.lore_reference import Array, svt

STEP = 1e-6


def threshold_between(A: Array, share: float) -> float:
    """Return a μ that lies in the middle between two singular values, in about this share of them."""
    sigma = np.linalg.svd(A, compute_uv=False)
    sigma = np.append(sigma[sigma > 1e-9 * sigma[0]], 0.0)
    k = min(int(share * len(sigma)), len(sigma) - 2)
    return float(sigma[k] + sigma[k + 1]) / 2


def differences(A: Array, X: Array, mu: float) -> Array:
    found: Array = (svt(A + STEP * X, mu) - svt(A - STEP * X, mu)) / (2 * STEP)
    return found


@given(
    kind=st.sampled_from(["spikes", "power law", "flat", "low rank"]),
    N=st.integers(1, 4),
    m=st.integers(1, 9),
    n=st.integers(1, 9),
    seed=st.integers(0, 99),
    share=st.floats(0, 1),
)
@settings(max_examples=60, deadline=None)
def test_it_is_what_finite_differences_give(
    kind: str, N: int, m: int, n: int, seed: int, share: float
) -> None:
    """With all triplets given, on any matrix of their span."""
    rng = np.random.default_rng(seed)
    As = [SPECTRA[kind](rng, max(m, n), min(m, n)) for _ in range(N)]
    mu = threshold_between(As[0], share)
    gaps = [np.abs(np.linalg.svd(A, compute_uv=False) - mu).min() for A in As]
    if min(gaps) < 1e-3 * mu:
        return  # a kink: there is no derivative
    found = [factors(A) for A in As]
    bases = joint(found, [])
    # between any σ and what does not lead at all, which is 0
    curvature = Curvature(in_bases(found, bases), (mu, mu), lambda sigma: shrunk(sigma, mu, mu) / sigma)
    core = torch.from_numpy(rng.standard_normal((bases.U.shape[1], bases.V.shape[1])))
    X = bases.lifted(core)
    expected = sum(differences(A, X.numpy(), mu) for A in As)
    size = N * float(core.norm())
    np.testing.assert_allclose(
        bases.lifted(curvature.of(core)),
        bases.lifted(bases.core(torch.from_numpy(expected))),
        atol=1e-5 * size,
    )


@pytest.mark.parametrize("shape", [(9, 7), (7, 7), (5, 1)])
@pytest.mark.parametrize("kind", ["spikes", "power law", "low rank"])
def test_the_tests_own_derivative_is_what_finite_differences_give(kind: str, shape: tuple[int, int]) -> None:
    A = SPECTRA[kind](np.random.default_rng(0), *shape)
    X, mu = np.random.default_rng(1).standard_normal(shape), threshold_between(A, 0.4)
    for matrix, direction in ((A, X), (A.T, X.T)):
        found = (derivative(matrix, mu) @ direction.ravel()).reshape(matrix.shape)
        np.testing.assert_allclose(found, differences(matrix, direction, mu), atol=1e-6)


def test_between_what_leads_and_what_does_not_the_coefficient_given_is_taken() -> None:
    """Of the exact coefficients, those of known singular values are within the matrix's own."""
    A = family("spikes", 2, 9, 7, 0)[0]
    U, sigma, Vt = np.linalg.svd(A)
    mu, alpha = threshold_between(A, 0.3), 0.4
    leading = factors(A).above(float(sigma[3]))
    bases = joint([leading], [factors(A)])
    curvature = Curvature(in_bases([leading], bases), (mu, mu), lambda s: torch.full_like(s, alpha))
    outside, core = np.outer(U[:, 0], Vt[5]), np.outer(U[:, 5], Vt[1])
    for X in (outside, core):
        found = bases.lifted(curvature.of(bases.core(torch.from_numpy(X))))
        np.testing.assert_allclose(found, alpha * X, atol=1e-12)
    beside = torch.from_numpy(np.outer(U[:, 5], Vt[6]))
    np.testing.assert_allclose(bases.lifted(curvature.of(bases.core(beside))), np.zeros((9, 7)), atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_it_is_symmetric_and_between_zero_and_their_number(seed: int) -> None:
    rng = np.random.default_rng(seed)
    found = [factors(A) for A in family("power law", 4, 8, 6, seed)]
    mu = 0.1 * float(rng.uniform(0.5, 3))
    bases = joint(found, [])
    curvature = Curvature(in_bases(found, bases), (mu, mu), lambda sigma: shrunk(sigma, mu, mu) / sigma)
    p, q = bases.U.shape[1], bases.V.shape[1]
    units = torch.eye(p * q, dtype=torch.float64)
    K = torch.stack([curvature.of(unit.reshape(p, q)).reshape(-1) for unit in units], 1)
    np.testing.assert_allclose(K, K.T, atol=1e-12)
    values = np.linalg.eigvalsh(K.numpy())
    assert values[0] >= -1e-12
    assert values[-1] <= 4 + 1e-12


def test_equal_singular_values_have_the_limit_of_unequal_ones() -> None:
    """Their coefficient is a quotient 0 / 0: 1 above μ, 0 below."""
    for level, expected in ((3.0, 1.0), (0.5, 0.0)):
        A = np.diag([level, level, level * (1 + 1e-9)])
        found = [factors(A)]
        bases = joint(found, [])
        curvature = Curvature(
            in_bases(found, bases), (1.0, 1.0), lambda sigma: shrunk(sigma, 1.0, 1.0) / sigma
        )
        X = torch.tensor([[1.0, 2.0, 0.0], [2.0, -1.0, 1.0], [0.0, 1.0, 0.5]], dtype=torch.float64)
        found_there = bases.lifted(curvature.of(bases.core(X)))
        np.testing.assert_allclose(found_there, expected * X, atol=1e-6)


def test_a_jump_at_the_level_counts_as_it_is() -> None:
    sigma = torch.tensor([5.0, 3.0, 2.0, 1.0])
    assert shrunk(sigma, 1.0, 2.0).tolist() == [4.0, 2.0, 0.0, 0.0]


def test_bases_hold_all_leading_vectors_and_lift_what_lies_in_them() -> None:
    found = [factors(b).truncated(2) for b in family("spikes", 3, 12, 10, 0)]
    before = [factors(b).truncated(1) for b in family("spikes", 3, 12, 10, 1)]
    bases = joint(found, before)
    assert (bases.U.shape, bases.V.shape) == ((12, 9), (10, 9))
    np.testing.assert_allclose(bases.U.T @ bases.U, np.eye(9), atol=1e-12)
    for part in (*found, *before):
        np.testing.assert_allclose(bases.lifted(bases.core(part.matrix())), part.matrix(), atol=1e-10)
