"""Thresholds are those of the proximal maps, found by brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize, nnls

from tasks.merging.lore.penalty import Penalty

# nnls does not end on numbers whose squares are 0
SIGMA = st.lists(st.floats(0, 100).map(lambda x: round(x, 9)), min_size=1, max_size=12).map(
    lambda s: np.array(sorted(s, reverse=True))
)


@given(sigma=SIGMA, mu=st.floats(0.001, 10))
@settings(max_examples=200, deadline=None)
def test_squared_is_the_proximal_map_of_half_mu_times_the_square(
    sigma: "np.ndarray[tuple[int], np.dtype[np.float64]]", mu: float
) -> None:
    """Min ½‖s − σ‖² + ½μ(Σs)² over s ≥ 0 is a least-squares problem with one more row."""
    A = np.vstack([np.eye(len(sigma)), np.full((1, len(sigma)), mu**0.5)])
    best, _ = nnls(A, np.append(sigma, 0.0))
    shrunk = np.maximum(sigma - Penalty("squared", mu).threshold(sigma), 0)
    np.testing.assert_allclose(shrunk, best, atol=1e-8 * max(sigma[0], 1))


@pytest.mark.parametrize("kind", ["nuclear", "squared"])
def test_the_price_and_the_threshold_belong_together(kind: str) -> None:
    """The matrix after thresholding minimises ½‖s − σ‖² + value: no general descent finds a lower one."""
    sigma, penalty = np.array([9.0, 4.0, 1.0, 0.5]), Penalty(kind, 0.7)  # type: ignore[arg-type]

    def objective(s: np.ndarray) -> float:
        return float(0.5 * np.sum((s - sigma) ** 2)) + penalty.value(float(s.sum()))

    shrunk = np.maximum(sigma - penalty.threshold(sigma), 0)
    found = minimize(objective, sigma / 2, bounds=[(0, None)] * 4, options={"ftol": 1e-14})
    assert objective(shrunk) <= found.fun + 1e-9
    np.testing.assert_allclose(shrunk, found.x, atol=1e-4)


def test_values_below_the_threshold_do_not_matter() -> None:
    penalty, sigma = Penalty("squared", 0.5), np.array([10.0, 8.0, 1.0, 0.5])
    t = penalty.threshold(sigma)
    assert t > 1.0
    assert penalty.threshold(sigma[:2]) == t
    assert penalty.threshold(sigma[:0]) == 0.0


def test_mu_comes_down_from_the_largest_singular_value_to_itself() -> None:
    penalty = Penalty("nuclear", 1.0)
    path = [penalty.coming_down(20.0, passes).mu for passes in range(1, 13)]
    assert path == sorted(path, reverse=True)
    assert 1.0 < path[0] <= 20.0
    assert path[-1] == 1.0
    assert Penalty("squared", 0.1).coming_down(20.0, 1) == Penalty("squared", 0.1)
