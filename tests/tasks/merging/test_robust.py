"""Robust middles equal numpy's and scipy's on the whole model, and one bad checkpoint does not move them far."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import trim_mean

from tasks.merging.distances import distances
from tasks.merging.robust import weiszfeld
from tasks.parameters.merge import MergeParams
from tests.support.in_memory import merge
from tests.support.trajectory_models import SHAPES, Model, trajectory

COUNTS = pytest.mark.parametrize("count", [2, 3, 4, 5, 8])


def run(tree: dict[str, Any], models: list[Model]) -> tuple[Model, Any]:
    return merge(MergeParams.model_validate(tree), models, rows=2)


@COUNTS
def test_the_median_is_numpy_s(count: int) -> None:
    models = trajectory(count)[1]
    merged, _ = run({"method": "median"}, models)
    for name in SHAPES:
        np.testing.assert_allclose(merged[name], np.median([m[name] for m in models], axis=0), rtol=1e-14)


@COUNTS
@pytest.mark.parametrize("share", [0.0, 0.2, 0.3, 0.49])
def test_the_trimmed_mean_is_scipy_s(count: int, share: float) -> None:
    models = trajectory(count)[1]
    merged, _ = run({"method": "trimmed_mean", "trimmed_mean": {"share": share}}, models)
    for name in SHAPES:
        expected = trim_mean(np.stack([m[name] for m in models]), share, axis=0)
        np.testing.assert_allclose(merged[name], expected, rtol=1e-13, atol=1e-15)


def flat(model: Model) -> np.ndarray:
    return np.concatenate([model[name].reshape(-1) for name in SHAPES])


@pytest.mark.parametrize("count", [3, 4, 5])
def test_the_geometric_median_is_what_a_minimiser_finds(count: int) -> None:
    models = trajectory(count)[1]
    merged, measures = run({"method": "geometric_median"}, models)
    points = np.stack([flat(model) for model in models])

    def total(c: np.ndarray) -> float:
        return float(np.linalg.norm(c @ points - points, axis=1).sum())

    best = minimize(lambda c: total(c / c.sum()), np.full(count, 1 / count), tol=1e-14)
    found = np.array(measures["tall"].weights)
    np.testing.assert_allclose(flat(merged), found @ points, rtol=1e-9, atol=1e-12)
    assert total(found) == pytest.approx(best.fun, rel=1e-7)
    assert {own.weights for own in measures.values()} == {tuple(found)}


POINTS = st.lists(st.lists(st.integers(-5, 5), min_size=3, max_size=3), min_size=2, max_size=7)


@given(POINTS)
def test_no_point_near_the_geometric_median_is_better(numbers: list[list[int]]) -> None:
    points = np.array(numbers, dtype=float)
    centred = points - points.mean(axis=0)
    weights = np.array(weiszfeld(distances(centred @ centred.T)))
    assert weights.sum() == pytest.approx(1)
    middle = weights @ points

    def total(place: np.ndarray) -> float:
        return float(np.linalg.norm(place - points, axis=1).sum())

    rng = np.random.default_rng(0)
    for scale in (1e-3, 0.1, 1.0):
        for direction in rng.standard_normal((10, 3)):
            assert total(middle) <= total(middle + scale * direction) + 1e-4


def test_points_on_a_line_have_their_middle_one_as_median() -> None:
    points = np.array([[0.0], [1.0], [2.0], [5.0], [40.0]])
    assert weiszfeld(abs(points - points.T)) == [0, 0, 1, 0, 0]
    assert weiszfeld(abs(points[:2] - points[:2].T)) == [0.5, 0.5]


@pytest.mark.parametrize("method", ["median", "trimmed_mean", "geometric_median"])
def test_one_bad_checkpoint_of_five_moves_them_no_further_than_the_others_lie_apart(method: str) -> None:
    models = trajectory(5)[1]
    bad = {name: 1e3 * models[2][name] for name in SHAPES}
    healthy = np.mean([flat(model) for model in models], axis=0)
    apart = max(np.linalg.norm(flat(model) - healthy) for model in models)
    merged, _ = run({"method": method}, [*models[:2], bad, *models[3:]])
    assert np.linalg.norm(flat(merged) - healthy) < apart
