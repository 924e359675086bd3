"""Intervals hold what they promise, and gains mean what they say."""

import math
import warnings
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tasks.verdict import intervals
from tasks.verdict.intervals import gains_of, items_needed, mcnemar, mean_interval, paired_gain

SIZES = st.one_of(st.floats(-1e6, 1e6), st.floats(-1e-100, 1e-100), st.floats(-1e100, 1e100))
NUMBERS = st.lists(SIZES, min_size=1, max_size=30)
BITS = st.lists(st.integers(0, 1), min_size=1, max_size=30)
PAIRS = st.lists(st.tuples(st.floats(-100, 100), st.floats(-100, 100)), min_size=2, max_size=20)
few = settings(max_examples=40, deadline=None)


@pytest.fixture
def quick(monkeypatch):
    """Where only orders and signs count, fewer resamples do."""
    monkeypatch.setattr(intervals, "RESAMPLES", 499)


@pytest.mark.usefixtures("quick")
class TestProperties:
    @few
    @given(st.one_of(NUMBERS, BITS))
    def test_the_mean_lies_in_its_interval_and_nothing_warns(self, values):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = mean_interval(values, seed=0)
        assert found.low <= found.mean <= found.high
        assert found.mean == pytest.approx(
            math.fsum(values) / len(values), abs=1e-9 * max(map(abs, values)), rel=1e-9
        )

    @few
    @given(PAIRS, st.randoms(use_true_random=False))
    def test_the_order_of_the_items_does_not_matter(self, pairs, rng):
        shuffled = pairs.copy()
        rng.shuffle(shuffled)
        assert paired_gain(*zip(*pairs, strict=True), True, 0) == paired_gain(
            *zip(*shuffled, strict=True), True, 0
        )

    @few
    @given(PAIRS)
    def test_swapping_the_models_or_the_direction_swaps_the_signs(self, pairs):
        merge, other = zip(*pairs, strict=True)
        gain, swapped = paired_gain(merge, other, True, 0), paired_gain(other, merge, True, 0)
        assert swapped == paired_gain(merge, other, False, 0)
        assert swapped.interval.mean == pytest.approx(-gain.interval.mean, abs=1e-12)
        assert (swapped.wins, swapped.losses) == (gain.losses, gain.wins)

    def test_the_interval_is_that_of_the_swapped_models_mirrored(self):
        merge, other = np.random.default_rng(1).normal(size=(2, 200))
        gain, swapped = (paired_gain(*pair, True, 0).interval for pair in ((merge, other), (other, merge)))
        width = gain.high - gain.low
        assert (gain.low, gain.high) == pytest.approx((-swapped.high, -swapped.low), abs=0.1 * width)


def test_shares_have_wilsons_interval():
    """The closed form, for 0 to all of 20."""
    z, n = stats.norm.ppf(0.975), 20
    for k in range(n + 1):
        p = k / n
        centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
        found = mean_interval([1] * k + [0] * (n - k), seed=0)
        assert (found.low, found.high) == pytest.approx((centre - half, centre + half), abs=1e-12)


def test_for_many_normal_values_the_bootstrap_agrees_with_student():
    values = np.random.default_rng(0).normal(3, 2, size=2000)
    student = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    found = mean_interval(values, seed=0)
    assert (found.low, found.high) == pytest.approx((student.low, student.high), abs=0.01)


@pytest.mark.parametrize(
    ("draw", "mean"),
    [(lambda rng: rng.normal(size=60), 0.0), (lambda rng: rng.exponential(size=60), 1.0)],
    ids=["normal", "long tail"],
)
def test_95_percent_intervals_hold_the_truth_about_95_times_in_100(draw, mean, monkeypatch):
    monkeypatch.setattr(intervals, "RESAMPLES", 999)
    rng = np.random.default_rng(5)
    found = [mean_interval(draw(rng), seed) for seed in range(400)]
    share = np.mean([interval.low <= mean <= interval.high for interval in found])
    assert 0.91 <= share <= 0.98


def test_a_long_tail_moves_the_interval_as_bca_says():
    """Against scipy from other resamples; plain percentiles would end a fifth of its width too low."""
    values = np.exp(np.random.default_rng(2).normal(0, 1.5, size=40))
    low, high = stats.bootstrap(
        (values,), np.mean, n_resamples=40_000, method="BCa", rng=np.random.default_rng(9)
    ).confidence_interval
    found = mean_interval(values, seed=0)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.05 * (high - low))


def test_the_seed_decides():
    values = np.random.default_rng(0).normal(size=50)
    assert mean_interval(values, 1) == mean_interval(values, 1)
    assert mean_interval(values, 1) != mean_interval(values, 2)


def test_equal_values_leave_no_doubt():
    """Also where the mean of equal numbers is rounded."""
    found = mean_interval([0.1] * 3, seed=0)
    assert found.low == found.mean == found.high
    gain = paired_gain([2.5, 1.0], [2.5, 1.0], True, 0)
    assert (gain.interval.low, gain.interval.high, gain.wins, gain.losses) == (0, 0, 0, 0)


def test_mcnemar_equals_the_enumeration_of_all_outcomes():
    """Every way in which the discordant items could have fallen, counted."""
    for wins, losses in product(range(6), repeat=2):
        n = wins + losses
        merge = [1] * wins + [0] * losses + [1, 0]
        other = [0] * wins + [1] * losses + [1, 0]
        as_extreme = sum(
            abs(2 * sum(outcome) - n) >= abs(wins - losses) for outcome in product((0, 1), repeat=n)
        )
        assert mcnemar(merge, other) == pytest.approx(as_extreme / 2**n)


def test_p_values_are_for_right_or_wrong_only():
    assert paired_gain([0, 1, 1], [0, 0, 1], True, 0).p_value == 1.0
    assert paired_gain([0, 0.5, 1], [0, 0, 1], True, 0).p_value is None


def test_wins_where_lower_is_better_are_lower_values():
    gain = paired_gain([1.0, 2.0, 3.0], [2.0, 2.5, 2.0], higher_is_better=False, seed=0)
    assert (gain.wins, gain.losses) == (2, 1)
    assert gain.interval.mean == pytest.approx(0.5 / 3)


def test_the_items_needed_give_80_percent_power():
    """Simulated: as many items as it says, from a normal of the observed mean and spread."""
    rng = np.random.default_rng(3)
    pilot = rng.normal(0.3, 1.0, size=40)
    needed = items_needed(pilot, min_gain=0.1)
    assert needed
    draws = rng.normal(pilot.mean(), pilot.std(ddof=1), size=(2000, needed))
    half = 1.96 * draws.std(axis=1, ddof=1) / math.sqrt(needed)
    settled = (draws.mean(axis=1) - half > 0.1) | (draws.mean(axis=1) + half <= 0.1)
    assert settled.mean() == pytest.approx(0.8, abs=0.03)


def test_no_number_of_items_settles_what_is_exactly_at_the_bar_or_never_varies():
    assert items_needed([0.0, 2.0], min_gain=1.0) is None
    assert items_needed([1.0, 1.0], min_gain=0.0) is None
    assert items_needed([1.0], min_gain=0.0) is None


def test_gains_are_per_item():
    assert gains_of([1, 5], [2, 2], higher_is_better=True).tolist() == [-1, 3]
    assert gains_of([1, 5], [2, 2], higher_is_better=False).tolist() == [1, -3]
