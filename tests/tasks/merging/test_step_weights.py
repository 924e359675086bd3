"""Weights by step equal integrals and fits computed independently; a decay leaves what is left of it."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from tasks.base.errors import BadInput
from tasks.base.measures import WeightsUsed
from tasks.merging.methods import METHODS
from tasks.merging.program import Settings
from tasks.merging.step_weights import (
    decay_weights,
    gamma_of,
    half_life_weights,
    planned_notes,
    planned_weights,
    power_weights,
    trend_weights,
    wsm_notes,
)
from tasks.parameters.merge import MergeParams
from tasks.trajectory.learning_rate import Rate
from tests.support.in_memory import merge
from tests.support.trajectory_models import SHAPES, trajectory

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


def test_planned_is_the_trend_as_long_as_the_rate_is_constant() -> None:
    for rates in ([], [Rate(0, 3e-4), Rate(900, 3e-4)]):
        assert planned_weights(FIVE, rates) == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


def test_planned_is_the_last_checkpoint_after_a_decay() -> None:
    assert planned_weights(FIVE, decayed(500)) == pytest.approx([0, 0, 0, 0, 1], abs=1e-9)
    step = [Rate(0, 1.0), Rate(150, 1.0), Rate(151, 0.01), Rate(600, 0.01)]
    assert planned_weights(FIVE, step) == pytest.approx([0, 0, 0, 0, 1], abs=0.01)


def test_planned_leaves_increments_the_lower_of_both_rates() -> None:
    """Half a decay, whose segments had 0.85, 0.75, 0.65 and 0.55 of the peak; the trend keeps less of the last ones."""
    rates = [Rate(step, 1 - step / 1000) for step in range(0, 501, 10)]
    kept = 1 - np.cumsum(trend_weights(FIVE, 0.5))[:-1]
    at = np.linspace(100, 500, 40_001)
    actual = 1 - at / 1000
    expected = [
        np.minimum(actual, 0.9 * share)[(at >= a) & (at < a + 100)].sum()
        / actual[(at >= a) & (at < a + 100)].sum()
        for a, share in zip(FIVE, kept, strict=False)
    ]
    assert shares_kept(planned_weights(FIVE, rates)) == pytest.approx(expected, abs=1e-3)


@given(STEPS, st.randoms())
def test_planned_does_not_mind_the_order_in_which_a_shell_lists_them(
    steps: list[int], random: Random
) -> None:
    weights = dict(zip(steps, planned_weights(steps, decayed(12_000)), strict=True))
    listed = random.sample(steps, len(steps))
    assert planned_weights(listed, decayed(12_000)) == [weights[step] for step in listed]


@given(STEPS, st.lists(st.tuples(st.integers(0, 10_000), st.floats(0, 1)), max_size=8))
def test_planned_weights_are_those_of_an_average(steps: list[int], logged: list[tuple[int, float]]) -> None:
    rates = [Rate(*rate) for rate in sorted(dict(logged).items())]
    weights = planned_weights(steps, rates)
    assert sum(weights) == pytest.approx(1)
    assert min(weights) >= -1e-12


@pytest.mark.parametrize("steps", [[0, 0, 0], [100, 200, 200]])
def test_planned_weighs_equally_where_steps_are_unknown(steps: list[int]) -> None:
    assert planned_weights(steps, decayed(500)) == pytest.approx([1 / 3] * 3)
    params = MergeParams(method="planned")
    settings = Settings(params, lambda name: params, steps, {}, rates=decayed(500))
    assert planned_notes(settings) == ["the checkpoints' names hold no steps of one run: all weigh the same"]


def test_uneven_steps_count_by_their_length() -> None:
    """A linear target over (0, 100, 1000): the increments keep 0.95 and 0.45."""
    assert shares_kept(decay_weights([0, 100, 1000], [])) == pytest.approx([0.95, 0.45])


def test_one_checkpoint_is_itself() -> None:
    assert decay_weights([7], decayed(100)) == [1.0]


WEIGHTS = {
    "half-life": lambda steps: half_life_weights(steps, 150.0),
    "power": lambda steps: power_weights(steps, 0.1),
    "trend": lambda steps: trend_weights(steps, 0.5),
    "decay": lambda steps: decay_weights(steps, [], "1-sqrt"),
}


@pytest.mark.parametrize("rule", WEIGHTS.values(), ids=WEIGHTS.keys())
@given(steps=STEPS.filter(lambda steps: steps[0] > 0))
def test_every_rule_sums_to_one(rule: Callable[[list[int]], list[float]], steps: list[int]) -> None:
    assert sum(rule(steps)) == pytest.approx(1, abs=1e-9)


@given(STEPS, st.floats(10, 5000))
def test_a_half_life_is_the_integral_of_the_decay(steps: list[int], half_life: float) -> None:
    edges = [2 * steps[0] - steps[1], *steps]
    raw = [quad(lambda s: 2 ** ((s - steps[-1]) / half_life), a, b)[0] for a, b in pairwise(edges)]
    assert half_life_weights(steps, half_life) == pytest.approx(np.array(raw) / sum(raw), abs=1e-7)


def test_a_half_life_of_evenly_spaced_checkpoints_is_a_decay_by_age() -> None:
    expected = np.array([0.6**age for age in (4, 3, 2, 1, 0)])
    half_life = 100 * np.log(2) / -np.log(0.6)
    assert half_life_weights(FIVE, half_life) == pytest.approx(expected / expected.sum())


@given(STEPS.filter(lambda steps: steps[0] > 0), st.floats(0.02, 0.28))
def test_a_power_profile_is_its_integral(steps: list[int], width: float) -> None:
    edges = [max(0, 2 * steps[0] - steps[1]), *steps]
    raw = [quad(lambda t: (t / steps[-1]) ** gamma_of(width), a, b)[0] for a, b in pairwise(edges)]
    assert power_weights(steps, width) == pytest.approx(np.array(raw) / sum(raw), abs=1e-6)


@pytest.mark.parametrize(("width", "gamma"), [(0.05, 16.97), (0.10, 6.94), (0.28, 0.17)])
def test_gamma_has_the_width_that_was_asked_for(width: float, gamma: float) -> None:
    """Against the moments of t^γ on [0, 1], and the values that Karras et al. print."""
    found = gamma_of(width)
    assert found == pytest.approx(gamma, rel=0.01)
    mean, square = (found + 1) / (found + 2), (found + 1) / (found + 3)
    assert (square - mean**2) ** 0.5 == pytest.approx(width)


@given(STEPS, st.integers(0, 99))
def test_the_whole_trend_is_the_end_of_the_fitted_line(steps: list[int], seed: int) -> None:
    values = np.random.default_rng(seed).standard_normal(len(steps))
    end = np.polyval(np.polyfit(np.array(steps) - steps[-1], values, 1), 0)
    assert np.dot(trend_weights(steps, 1.0), values) == pytest.approx(end, rel=1e-6, abs=1e-6)
    assert trend_weights(steps, 0.0) == pytest.approx([1 / len(steps)] * len(steps))


@given(STEPS, st.sampled_from(["linear", "cosine", "1-sqrt"]))
def test_a_profile_at_a_constant_rate_is_its_mean_between_two_checkpoints(
    steps: list[int], profile: Any
) -> None:
    left = {
        "linear": lambda x: 1 - x,
        "cosine": lambda x: (1 + np.cos(np.pi * x)) / 2,
        "1-sqrt": lambda x: 1 - x**0.5,
    }[profile]
    places = [(step - steps[0]) / (steps[-1] - steps[0]) for step in steps]
    expected = [quad(left, a, b)[0] / (b - a) for a, b in pairwise(places)]
    assert shares_kept(decay_weights(steps, [], profile)) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    ("tree", "weights"),
    [
        ({"method": "ema", "ema": {"half_life": 200}}, half_life_weights([100, 150, 400], 200)),
        ({"method": "power_ema", "power_ema": {"width": 0.2}}, power_weights([100, 150, 400], 0.2)),
        ({"method": "trend", "trend": {"kappa": 1.0}}, trend_weights([100, 150, 400], 1.0)),
        ({"method": "wsm"}, decay_weights([100, 150, 400], [])),
        ({"method": "planned"}, planned_weights([100, 150, 400], [])),
    ],
)
def test_a_method_merges_by_its_weights_and_records_them(tree: dict[str, Any], weights: list[float]) -> None:
    models = trajectory(3)[1]
    merged, measures = merge(MergeParams.model_validate(tree), models, rows=2, steps=[100, 150, 400])
    for name in SHAPES:
        expected = sum(w * model[name] for w, model in zip(weights, models, strict=True))
        np.testing.assert_allclose(merged[name], expected, rtol=1e-12, atol=1e-14)
        found = measures[name]
        assert isinstance(found, WeightsUsed)
        assert found.weights == pytest.approx(weights)


@pytest.mark.parametrize("steps", [[0, 0, 0], [300, 100, 200], [100, 200, 200]])
@pytest.mark.parametrize("method", ["wsm", "trend", "power_ema"])
def test_steps_that_are_unknown_or_go_back_are_refused(method: Any, steps: list[int]) -> None:
    params = MergeParams(method=method)
    with pytest.raises(BadInput, match=rf"{method} weighs by training step, and steps \[.*\] do not rise"):
        METHODS[method].check(Settings(params, lambda name: params, steps, {}))


def test_wsm_says_what_it_knew_of_the_rate() -> None:
    params = MergeParams(method="wsm")
    settings = Settings(params, lambda name: params, FIVE, {})
    assert wsm_notes(settings) == ["the log holds no learning rate: it counts as constant"]
    assert wsm_notes(replace(settings, rates=[Rate(0, 1.0), Rate(900, 1.0)])) == []
    assert "equal to the last checkpoint" in wsm_notes(replace(settings, rates=decayed(500)))[0]
