"""SLERP against the rotation it stands for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.base.measures import MethodMeasures
from tasks.merging.slerp import arc_weights
from tasks.parameters.merge import MergeParams
from tests.support.in_memory import merge
from tests.support.trajectory_models import SHAPES, Model, trajectory

COSINES = st.floats(-0.999, 0.999)
SHARES = st.floats(0, 1)


def run(t: float, models: list[Model]) -> tuple[Model, dict[str, MethodMeasures | None]]:
    return merge(MergeParams.model_validate({"method": "slerp", "slerp": {"t": t}}), models, rows=2)


def ends() -> list[Model]:
    """Two models at angles that differ between tensors."""
    return [trajectory(1, seed, step=1.0)[1][0] for seed in (1, 2)]


def rotated(first: np.ndarray, second: np.ndarray, t: float) -> np.ndarray:
    """Turn the first direction by t times the angle in the plane of both (Gram-Schmidt); bring back lengths."""
    a, b = (end.ravel() / np.linalg.norm(end) for end in (first, second))
    across = b - (a @ b) * a
    angle = np.arctan2(np.linalg.norm(across), a @ b)
    across /= np.linalg.norm(across)
    unit = np.cos(t * angle) * a + np.sin(t * angle) * across
    # unit = x·a + y·b; SLERP of vectors of any length keeps x and y
    x, y = np.linalg.lstsq(np.stack([a, b], 1), unit, rcond=None)[0]
    return x * first + y * second


@pytest.mark.parametrize("t", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("name", SHAPES)
def test_the_direction_turns_at_constant_speed(t: float, name: str) -> None:
    models = ends()
    merged, measures = run(t, models)
    np.testing.assert_allclose(merged[name], rotated(models[0][name], models[1][name], t), atol=1e-10)
    a, b = (model[name].ravel() for model in models)
    assert measures[name].cosine == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@given(COSINES, SHARES)
def test_between_unit_vectors_the_result_is_a_unit_vector(cosine: float, t: float) -> None:
    x, y = arc_weights(cosine, t)
    assert x * x + y * y + 2 * x * y * cosine == pytest.approx(1)


@given(COSINES, SHARES)
def test_from_the_other_end_it_is_the_same_arc(cosine: float, t: float) -> None:
    assert arc_weights(cosine, t) == pytest.approx(arc_weights(cosine, 1 - t)[::-1])


@pytest.mark.parametrize("cosine", [1.0, 0.9996, -0.9996, -1.0])
def test_collinear_ends_are_joined_by_a_line(cosine: float) -> None:
    assert arc_weights(cosine, 0.25) == [0.75, 0.25]


@given(SHARES)
def test_the_line_begins_where_it_equals_the_arc(t: float) -> None:
    assert arc_weights(0.9995, t) == pytest.approx([1 - t, t], abs=1e-4)


def test_a_zero_vector_has_no_direction_to_turn() -> None:
    first = ends()[0]
    merged, _ = run(0.25, [first, {name: 0 * tensor for name, tensor in first.items()}])
    for name in SHAPES:
        np.testing.assert_allclose(merged[name], 0.75 * first[name])
