"""Weights leave every increment the share that a linear decay would have left it, and no more."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.trajectory.decay_weights import decay_weights
from tasks.trajectory.learning_rate import Rate

FIVE = [100, 200, 300, 400, 500]
STEPS = st.lists(st.integers(0, 10_000), min_size=2, max_size=12, unique=True).map(sorted)


def decayed(end: int) -> list[Rate]:
    return [Rate(step, 1 - step / end) for step in range(0, end + 1, 10)]


def shares_kept(weights: list[float]) -> list[float]:
    """Return w_i = Σ_{j≥i} c_j, what is kept of the increment before checkpoint i."""
    return [sum(weights[i:]) for i in range(1, len(weights))]


def test_a_constant_rate_gives_the_trapezoid() -> None:
    assert decay_weights(FIVE, []) == pytest.approx([0.125, 0.25, 0.25, 0.25, 0.125])
    assert decay_weights(FIVE, [Rate(0, 3e-4), Rate(900, 3e-4)]) == pytest.approx(decay_weights(FIVE, []))


def test_a_rate_that_has_decayed_keeps_the_last() -> None:
    assert decay_weights(FIVE, decayed(500)) == pytest.approx([0, 0, 0, 0, 1], abs=1e-9)
    cosine = [Rate(step, 0.5 * (1 + np.cos(np.pi * step / 500))) for step in range(0, 501, 5)]
    assert decay_weights(FIVE, cosine) == pytest.approx([0, 0, 0, 0, 1], abs=5e-3)


def test_half_a_decay_leaves_half() -> None:
    """The rate has come down to half: the increments keep the ratio of the wanted rate to the actual one."""
    rates = [Rate(step, 1 - step / 1000) for step in range(0, 501, 10)]
    at = np.linspace(100, 500, 40_001)
    actual, wanted = 1 - at / 1000, 0.9 * (500 - at) / 400
    expected = [
        np.minimum(actual, wanted)[(at >= a) & (at <= a + 100)].sum()
        / actual[(at >= a) & (at <= a + 100)].sum()
        for a in FIVE[:-1]
    ]
    assert shares_kept(decay_weights(FIVE, rates)) == pytest.approx(expected, abs=1e-3)


@given(STEPS, st.lists(st.tuples(st.integers(0, 10_000), st.floats(0, 1)), max_size=8))
def test_they_are_weights_of_an_average(steps: list[int], logged: list[tuple[int, float]]) -> None:
    rates = [Rate(*rate) for rate in sorted(dict(logged).items())]
    weights = decay_weights(steps, rates)
    assert len(weights) == len(steps)
    assert sum(weights) == pytest.approx(1)
    assert min(weights) >= -1e-12


def test_uneven_steps_count_by_their_length() -> None:
    """A linear target over (0, 100, 1000): the increments keep 0.95 and 0.45."""
    assert shares_kept(decay_weights([0, 100, 1000], [])) == pytest.approx([0.95, 0.45])


def test_one_checkpoint_is_itself() -> None:
    assert decay_weights([7], decayed(100)) == [1.0]
