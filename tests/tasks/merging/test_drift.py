"""The mean moves along the fitted line as far as least squares, computed independently, say that it is drift."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import linregress

from tasks.base.measures import WeightsUsed
from tasks.merging.drift import drift_findings, drift_notes, shrinkage
from tasks.merging.methods import METHODS
from tasks.merging.program import Settings
from tasks.parameters.merge import MergeParams
from tests.support.in_memory import merge
from tests.support.trajectory_models import SHAPES, trajectory

DRIFT = MergeParams(method="drift")
UNEVEN = [100, 150, 400, 410, 900, 1000]
STEPS = st.lists(st.integers(0, 10_000), min_size=3, max_size=12, unique=True).map(sorted)


def noise_about_a_point(rng: np.random.Generator, count: int) -> list[np.ndarray]:
    """Jump about the optimum that a constant rate has found."""
    return [rng.standard_normal((40, 30)) for _ in range(count)]


def coming_to_rest(rng: np.random.Generator, count: int) -> list[np.ndarray]:
    """Decay the rate to 0."""
    steps = [rng.standard_normal((40, 30)) * (1 - i / count) for i in range(count)]
    return list(np.cumsum(steps, axis=0) + 3 * np.arange(count)[:, None, None])


def random_walk(rng: np.random.Generator, count: int) -> list[np.ndarray]:
    """Still learn, and know no way."""
    return list(np.cumsum([rng.standard_normal((40, 30)) for _ in range(count)], axis=0))


KINDS = [noise_about_a_point, coming_to_rest, random_walk]


def fitted(steps: list[int], thetas: list[np.ndarray]) -> np.ndarray:
    """Fit a line to every element by polyfit, shrink its run from the mean to the newest step."""
    rows = np.stack([theta.reshape(-1) for theta in thetas])
    away = np.array(steps) - np.mean(steps)
    slope, middle = np.polyfit(away, rows, 1)
    left = rows - middle - away[:, None] * slope
    variance = (left**2).sum() / (len(steps) - 2) / rows.shape[1] / (away**2).sum()  # of an element's slope
    kappa = max(0.0, 1 - rows.shape[1] * variance / (slope**2).sum()) if slope.any() else 0.0
    return (middle + kappa * away[-1] * slope).reshape(thetas[0].shape)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [UNEVEN, [10, 20, 30], list(range(0, 1200, 100))])
def test_it_is_the_fitted_line_shrunk_by_its_scatter(kind: Any, steps: list[int]) -> None:
    rng = np.random.default_rng(len(steps))
    models = [{"matrix": theta, "vector": theta[0]} for theta in kind(rng, len(steps))]
    merged, _ = merge(DRIFT, models, rows=7, steps=steps)
    for name in ("matrix", "vector"):
        expected = fitted(steps, [model[name] for model in models])
        np.testing.assert_allclose(merged[name], expected, rtol=1e-9, atol=1e-9)


def test_the_order_in_which_they_are_named_does_not_matter() -> None:
    """As a shell lists checkpoint-100, checkpoint-1000, checkpoint-300."""
    models = [{"matrix": theta} for theta in coming_to_rest(np.random.default_rng(0), 4)]
    found = merge(DRIFT, models, steps=[100, 300, 500, 1000])[0]["matrix"]
    listed = merge(DRIFT, [models[i] for i in (0, 3, 1, 2)], steps=[100, 1000, 300, 500])[0]["matrix"]
    np.testing.assert_allclose(listed, found, rtol=1e-12)


@given(STEPS, st.integers(0, 99))
def test_of_one_element_it_is_what_the_test_of_a_regression_leaves(steps: list[int], seed: int) -> None:
    """κ = 1 − 1/F, F = r²(N − 2)/(1 − r²)."""
    values = np.random.default_rng(seed).standard_normal(len(steps)) + 0.0003 * np.array(steps)
    r2 = linregress(steps, values).rvalue ** 2
    away = values - values.mean()
    expected = max(0.0, 1 - (1 - r2) / (r2 * (len(steps) - 2)))
    assert shrinkage(steps, np.outer(away, away)) == pytest.approx(expected, abs=1e-6)


def test_noise_about_a_point_stays_at_the_mean_and_a_straight_way_goes_to_its_end() -> None:
    rng, steps = np.random.default_rng(0), list(range(0, 800, 100))
    noise = [{"matrix": theta} for theta in noise_about_a_point(rng, 8)]
    mean = np.mean([model["matrix"] for model in noise], axis=0)
    found = merge(DRIFT, noise, steps=steps)[0]["matrix"]
    assert np.linalg.norm(found - mean) < 0.1 * np.linalg.norm(mean)
    way = rng.standard_normal((40, 30))
    straight = [{"matrix": step * way} for step in steps]
    np.testing.assert_allclose(merge(DRIFT, straight, steps=steps)[0]["matrix"], 700 * way, rtol=1e-9)


@pytest.mark.parametrize("count", [3, 5, 8])
def test_what_does_not_move_is_averaged_to_the_last_bit(count: int) -> None:
    frozen = [{"frozen": np.random.default_rng(0).standard_normal((5, 7)).astype(np.float32)}] * count
    merged, measures = merge(DRIFT, frozen, dtype=np.float32, steps=range(count))
    plain, _ = merge(MergeParams(method="average"), frozen, dtype=np.float32)
    np.testing.assert_array_equal(merged["frozen"], plain["frozen"])
    assert measures["frozen"] == WeightsUsed(weights=(1 / count,) * count)


@pytest.mark.parametrize(
    ("steps", "note"),
    [
        ([10, 20], "two checkpoints show no scatter"),
        ([0, 0, 0], "no steps of one run"),
        ([10, 20, 10, 20], "no steps of one run"),
    ],
)
def test_without_a_line_it_is_the_average_and_says_so(steps: list[int], note: str) -> None:
    models = trajectory(len(steps))[1]
    merged, _ = merge(DRIFT, models, rows=2, steps=steps)
    plain, _ = merge(MergeParams(method="average"), models, rows=2)
    for name in SHAPES:
        np.testing.assert_allclose(merged[name], plain[name], rtol=1e-12, atol=1e-15)
    settings = Settings(DRIFT, lambda tensor: DRIFT, steps, {})
    assert note in drift_notes(settings)[0]
    assert drift_findings(settings, {}) == []
    assert METHODS["drift"].check(settings) is None  # type: ignore[func-returns-value]
