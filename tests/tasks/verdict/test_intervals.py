"""Intervals hold what they promise, and one more win never lowers them."""

import math
import warnings
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tasks.verdict.intervals import estimate_mean, found_with, interval, score_interval

SIZES = st.one_of(st.floats(-1e6, 1e6), st.floats(-1e-100, 1e-100), st.floats(-1e100, 1e100))
NUMBERS = st.lists(SIZES, min_size=1, max_size=30)
BITS = st.lists(st.integers(0, 1), min_size=1, max_size=30)
few = settings(max_examples=100, deadline=None)


@few
@given(st.one_of(NUMBERS, BITS))
def test_the_mean_lies_in_its_interval_and_nothing_warns(values):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = score_interval(values)
    assert found.low <= found.mean <= found.high
    assert found.mean == pytest.approx(
        math.fsum(values) / len(values), abs=1e-9 * max(map(abs, values)), rel=1e-9
    )


@few
@given(NUMBERS, st.randoms(use_true_random=False))
def test_the_order_of_the_items_does_not_matter(values, rng):
    """But for the rounding of sums."""
    shuffled = values.copy()
    rng.shuffle(shuffled)
    one, other = interval(estimate_mean(values)), interval(estimate_mean(shuffled))
    size = max(map(abs, values))
    for end in ("mean", "low", "high"):
        assert getattr(one, end) == pytest.approx(getattr(other, end), abs=1e-7 * size)


@few
@given(st.lists(st.floats(-100, 100), min_size=2, max_size=20))
def test_swapping_the_models_mirrors_the_interval(gains):
    one, other = (interval(estimate_mean(sign * np.array(gains))) for sign in (1, -1))
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low), abs=1e-9)


def test_shares_have_wilsons_interval():
    """Scipy's, for 0 to all of 20."""
    for k in range(21):
        share = stats.binomtest(k, 20).proportion_ci(0.95, method="wilson")
        found = score_interval([1] * k + [0] * (20 - k))
        assert (found.low, found.high) == pytest.approx((share.low, share.high), abs=1e-12)


@pytest.mark.parametrize("items", range(2, 60))
def test_a_share_s_interval_holds_shares(items: int) -> None:
    none, all_ = score_interval([0] * items), score_interval([1] * items)
    assert none.low == 0
    assert all_.high == 1


def test_without_skewness_the_interval_is_students():
    half = np.random.default_rng(0).normal(0, 2, size=100)
    values = 3 + np.concatenate([half, -half])
    student = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    found = score_interval(values)
    assert (found.low, found.high) == pytest.approx((student.low, student.high), abs=1e-9)


def test_the_end_towards_the_tail_lies_farther_out_by_the_edgeworth_term():
    """Independently, from scipy's moments; the other end is Student's."""
    values = np.random.default_rng(2).exponential(size=200)
    error, t = stats.sem(values), stats.t.ppf(0.975, 199)
    # what is skewed is the mean: by the n-th root less than the values, with a factor for the n - 1 of the error
    skewness = stats.skew(values) / math.sqrt(200)
    found = score_interval(values)
    assert found.low == pytest.approx(values.mean() - t * error)
    assert found.high == pytest.approx(values.mean() + (t + skewness * (2 * t**2 + 1) / 6) * error)
    mirrored = score_interval(-values)
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low))


def test_the_end_towards_the_tail_is_missed_less_often_than_students():
    """Which should be missed by 2.5 % of samples."""
    rng = np.random.default_rng(5)
    samples = rng.lognormal(-0.5, 1, size=(4000, 200))  # of mean 1
    student = samples.mean(1) + stats.t.ppf(0.975, 199) * stats.sem(samples, axis=1)
    ours = np.array([interval(estimate_mean(sample)).high for sample in samples])
    assert np.mean(student < 1) > 0.055
    assert np.mean(ours < 1) < 0.045


@pytest.mark.parametrize("items", [100, 300])
def test_one_more_win_never_lowers_an_end(items):
    def ends(wins, losses):
        gains = np.zeros(items)
        gains[:wins], gains[wins : wins + losses] = 1, -1
        return interval(estimate_mean(gains))

    for wins, losses in product(range(25), repeat=2):
        better = [(wins + 1, losses), *([(wins, losses - 1), (wins + 1, losses - 1)] if losses else [])]
        for more, fewer in better:
            if not (wins + losses and more + fewer):
                continue  # equal on every item: there is no interval
            before, after = ends(wins, losses), ends(more, fewer)
            assert after.low >= before.low - 1e-12
            assert after.high >= before.high - 1e-12


def test_the_error_of_clusters_is_that_of_the_formula():
    """Term by term in plain Python, clusters of unequal sizes."""
    rng = np.random.default_rng(3)
    clusters = [str(c) for c in rng.integers(0, 12, size=90)]
    values = rng.normal(size=90)
    mean, n, groups = values.mean(), 90, sorted(set(clusters))
    squares = sum(
        sum(v - mean for v, c in zip(values, clusters, strict=True) if c == group) ** 2 for group in groups
    )
    found = estimate_mean(values, clusters)
    expected = math.sqrt(squares) / n * math.sqrt(len(groups) / (len(groups) - 1))
    assert (found.error, found.freedom) == (pytest.approx(expected), len(groups) - 1)


def test_clusters_of_one_are_items_and_copies_of_an_item_add_nothing():
    values = np.random.default_rng(4).normal(size=50)
    alone = estimate_mean(values)
    assert estimate_mean(values, [str(i) for i in range(50)]) == pytest.approx(alone)
    tripled = estimate_mean(np.repeat(values, 3), [str(i // 3) for i in range(150)])
    assert tripled == pytest.approx(alone)


def test_weights_make_the_mean_of_means():
    """Two groups of 10 and 40 items that count the same; the error is that of two independent means."""
    rng = np.random.default_rng(6)
    small, large = rng.normal(size=10), rng.normal(2, 1, size=40)
    weights = [50 / (2 * 10)] * 10 + [50 / (2 * 40)] * 40
    found = estimate_mean(np.concatenate([small, large]), weights=weights)
    assert found.mean == pytest.approx((small.mean() + large.mean()) / 2)
    own = np.concatenate([(small - found.mean) / 20, (large - found.mean) / 80])
    assert found.error == pytest.approx(math.sqrt(float((own**2).sum()) * 50 / 49))


def test_equal_values_leave_no_doubt():
    found = interval(estimate_mean([0.5] * 3))
    assert found.low == found.mean == found.high == 0.5


def test_a_gain_of_that_size_is_found_four_times_in_five():
    """By drawing new items from normal gains of that mean."""
    rng, items = np.random.default_rng(11), 400
    gain = found_with(1 / math.sqrt(items))
    assert gain == pytest.approx(2.8 / math.sqrt(items), rel=1e-3)
    draws = [interval(estimate_mean(rng.normal(gain, 1, size=items))).low > 0 for _ in range(2000)]
    assert np.mean(draws) == pytest.approx(0.8, abs=0.03)
