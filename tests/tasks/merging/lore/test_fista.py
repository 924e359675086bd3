"""FISTA in the span of the last three S is FISTA on whole matrices."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.merging.lore.algebra import Factors, add_up
from tasks.merging.lore.fista import Fista, norm2
from tasks.merging.lore.penalty import Penalty
from tests.support.lore_factors import factors
from tests.support.lore_matrices import family
from tests.support.lore_reference import Array, noise_edge, primal, prox


def whole_matrices(B: Array, mu: float, passes: int) -> list[Array]:
    """Return the z of FISTA with gradient restart (O'Donoghue and Candès 2015)."""
    z, before, t, path = np.zeros(B.shape[1:]), None, 1.0, []
    for _ in range(passes):
        moved = -np.sum([prox(b - z, mu) for b in B], axis=0) / len(B)
        if before is None:
            following, before = t, moved
        else:
            if np.sum((moved - z) * (moved - before)) < 0:
                t = 1.0
            following = (1 + np.sqrt(1 + 4 * t**2)) / 2
        z, before, t = moved + (t - 1) / following * (moved - before), moved, following
        path.append(z)
    return path


@pytest.mark.parametrize("N", [3, 5])
@pytest.mark.parametrize("share", [0.3, 1.0])
def test_the_path_is_that_of_whole_matrices(N: int, share: float) -> None:
    B = family("spikes", N, 12, 9, 0)
    mu, passes = share * noise_edge(B), 25
    descent, z, tolerance = Fista(N, float(np.sum(B**2))), np.zeros((12, 9)), 1e-9
    for expected in whole_matrices(B, mu, passes):
        deltas = [factors(b - z, mu) for b in B]
        accounts = descent.take(deltas, [mu] * N, Penalty("nuclear", mu))
        S = np.sum([delta.matrix().numpy() for delta in deltas], axis=0)
        assert accounts.primal == pytest.approx(
            primal(B, np.stack([delta.matrix().numpy() for delta in deltas]), mu), rel=1e-9
        )
        step = np.linalg.norm(-z - S / N, 2)
        assert descent.remaining(np.inf) == pytest.approx(step, rel=0.02, abs=1e-12)
        assert descent.remaining(0.0) <= step + 1e-6  # from inner products: exact to √ε
        if step < 1e-6:  # whether to restart is the sign of a product of two steps: from here on, rounding
            tolerance = 1e-6
        z = descent.next_z().matrix().numpy()
        np.testing.assert_allclose(z, expected, atol=tolerance)


@given(m=st.integers(1, 30), n=st.integers(1, 30), rank=st.integers(1, 6), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_norm2_is_the_spectral_norm_from_below(m: int, n: int, rank: int, seed: int) -> None:
    """Of factors whose columns are not orthonormal, with σ of either sign."""
    rng = np.random.default_rng(seed)
    parts = (rng.standard_normal((m, rank)), rng.standard_normal(rank), rng.standard_normal((n, rank)))
    given_factors = Factors(*map(torch.from_numpy, parts))
    exact = float(np.linalg.norm(given_factors.matrix().numpy(), 2))
    assert 0.9 * exact <= norm2(given_factors) <= exact * (1 + 1e-9)


def test_norm2_of_cancelling_factors_is_zero() -> None:
    one = factors(family("spikes", 3, 8, 6, 0)[0])
    assert norm2(add_up([one, one._replace(sigma=-one.sigma)])) < 1e-12
