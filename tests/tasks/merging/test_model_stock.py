"""Model Stock against the paper's formula, pair by pair."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.base.measures import MethodMeasures, ModelStockMeasures, TensorMeasures
from tasks.merging.model_stock import interpolation, model_stock_findings
from tasks.merging.program import Settings
from tasks.parameters.merge import MergeParams
from tests.support.in_memory import merge
from tests.support.trajectory_models import SHAPES, trajectory

PARAMS = MergeParams(method="model_stock")


def expected(base: np.ndarray, thetas: list[np.ndarray]) -> tuple[np.ndarray, float, float]:
    """t·mean + (1 − t)·base, t and the mean cosine (Jang et al. 2024, section 4)."""
    deltas = [(theta - base).ravel() for theta in thetas]
    cosine = np.mean(
        [a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) for a, b in itertools.combinations(deltas, 2)]
    )
    t = len(thetas) * cosine / (1 + (len(thetas) - 1) * cosine)
    return t * np.mean(thetas, axis=0) + (1 - t) * base, t, cosine


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("name", SHAPES)
def test_the_average_is_trusted_as_far_as_the_angles_allow(count: int, name: str) -> None:
    base, models = trajectory(count)
    merged, measures = merge(PARAMS, models, base, rows=2)
    result, t, cosine = expected(base[name], [model[name] for model in models])
    assert 0 < t < 1
    np.testing.assert_allclose(merged[name], result, rtol=1e-11)
    assert isinstance(measures[name], ModelStockMeasures)
    assert (measures[name].t, measures[name].cosine) == (pytest.approx(t), pytest.approx(cosine))


def one(deltas: list[list[float]]) -> tuple[np.ndarray, MethodMeasures | None]:
    base = np.array([[1.0, 2.0]])
    merged, measures = merge(PARAMS, [{"w": base + np.array([delta])} for delta in deltas], {"w": base})
    return merged["w"] - base, measures["w"]


def test_equal_task_vectors_are_trusted_wholly() -> None:
    moved, measures = one([[0.5, 0.25]] * 3)
    np.testing.assert_allclose(moved, [[0.5, 0.25]])
    assert measures.t == pytest.approx(1)


@pytest.mark.parametrize("deltas", [[[1, 0], [0, 1]], [[1, 0], [-1, 0.5]], [[1, 0], [-1, 0]]])
def test_task_vectors_at_right_angles_or_more_leave_the_base(deltas: list[list[float]]) -> None:
    """The formula would go backwards, and has no value at all for opposites."""
    moved, measures = one(deltas)
    assert measures.t == 0
    assert measures.cosine <= 0
    np.testing.assert_array_equal(moved, [[0, 0]])


def test_a_checkpoint_equal_to_the_base_agrees_with_nobody() -> None:
    _, measures = one([[1, 0], [1, 0], [0, 0]])
    assert measures.cosine == pytest.approx(1 / 3)


@pytest.mark.parametrize("scale", [1e-3, 1e-8, 1e-30])
def test_only_the_angle_counts_however_small_the_task_vectors(scale: float) -> None:
    deltas = np.array([[1, 0.5], [1, 1]])
    base = np.zeros((1, 2))
    models = [{"w": scale * delta[None]} for delta in deltas]
    _, measures = merge(PARAMS, models, {"w": base})
    assert measures["w"].cosine == pytest.approx(1.5 / np.sqrt(1.25 * 2))


@given(st.floats(0, 1), st.integers(2, 20))
def test_the_interpolation_stays_between_base_and_average_and_grows(cosine: float, count: int) -> None:
    t = interpolation(cosine, count)
    assert 0 <= t <= 1 + 1e-12
    assert t <= interpolation(min(cosine + 0.01, 1.0), count) + 1e-12
    assert t >= cosine - 1e-12


def test_nothing_moved_is_the_base() -> None:
    base, _ = trajectory(1)
    merged, measures = merge(PARAMS, [base] * 3, base)
    for name in SHAPES:
        np.testing.assert_array_equal(merged[name], base[name])
        assert measures[name] == ModelStockMeasures(t=0.0, cosine=0.0)


def test_tensors_whose_task_vectors_point_apart_are_named() -> None:
    settings = Settings(PARAMS, lambda name: PARAMS, (1, 2), {})
    found = {f"w{i}": TensorMeasures(method=ModelStockMeasures(t=0, cosine=-0.1)) for i in range(4)}
    found["fine"] = TensorMeasures(method=ModelStockMeasures(t=0.5, cosine=0.5))
    (note,) = model_stock_findings(settings, found)
    assert note == "4 of 5 tensors stay the base's: their task vectors point apart (w0, w1, w2, …)"
    assert model_stock_findings(settings, {"fine": found["fine"]}) == []
