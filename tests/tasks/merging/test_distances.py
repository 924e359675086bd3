"""Distances equal numpy's; a bad checkpoint stands out and does not move what is usual."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.merging.distances import course, distances, remoteness

SEEDS = st.integers(0, 10_000)
COUNTS = st.integers(2, 12)


def between(points: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.linalg.norm(points[:, None] - points, axis=2)
    return found


@given(SEEDS, COUNTS)
def test_inner_products_from_any_point_give_the_distances(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.standard_normal((count, 30))
    away = points - rng.standard_normal(30)
    np.testing.assert_allclose(distances(away @ away.T), between(points), atol=1e-6)


@pytest.mark.parametrize("count", [3, 5, 20])
def test_the_drift_index_tells_a_line_from_a_walk_from_noise(count: int) -> None:
    rng = np.random.default_rng(count)
    steps = rng.standard_normal((count, 100_000))
    line = np.arange(count)[:, None] * steps[0]
    for points, drift in [(line, count - 1), (np.cumsum(steps, axis=0), 1), (steps, 1 / (count - 1))]:
        found = course(between(points))
        assert found is not None
        assert found.drift == pytest.approx(drift, rel=0.05)
        assert found.last_step == pytest.approx(1, rel=0.02)


def test_what_did_not_move_has_no_course() -> None:
    assert course(np.zeros((4, 4))) is None
    assert course(between(np.eye(2))) is None


@given(SEEDS, st.integers(3, 12), st.floats(10, 1e6))
def test_one_that_lies_far_stands_out_wherever_it_is(seed: int, count: int, far: float) -> None:
    rng = np.random.default_rng(seed)
    points = np.cumsum(rng.standard_normal((count, 2000)), axis=0)
    place = int(rng.integers(count))
    points[place] += far * np.sqrt(count) * rng.standard_normal(2000)
    found = remoteness(between(points))
    assert int(np.argmax(found)) == place
    assert found[place] > 2
    assert max(found[:place] + found[place + 1 :]) < 2


@given(SEEDS, st.integers(4, 30))
def test_none_stands_out_of_a_random_walk_nor_of_noise_about_a_point(seed: int, count: int) -> None:
    steps = np.random.default_rng(seed).standard_normal((count, 1000))
    assert max(remoteness(between(steps))) < 1.3
    assert max(remoteness(between(np.cumsum(steps, axis=0)))) < 1.8


def test_two_cannot_tell_and_equals_are_usual() -> None:
    assert remoteness(between(np.eye(2))) == [1, 1]
    assert remoteness(np.zeros((4, 4))) == [1, 1, 1, 1]
    assert remoteness(between(np.array([[0.0], [0.0], [0.0], [5.0]]))) == [1, 1, 1, np.inf]
