"""What looks cost adds up as the formulas say, and no faster."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tasks.verdict.intervals import LEVEL
from tasks.verdict.wear import BUDGET, chance_of_error, level_at, optimism


def test_without_spending_every_look_costs_the_same() -> None:
    assert {level_at(number, "none") for number in (1, 10, 1000)} == {LEVEL}
    assert chance_of_error([LEVEL] * 30) == pytest.approx(1 - 0.975**30)


def test_spending_keeps_the_sum_below_its_budget_for_ever() -> None:
    levels = [level_at(number, "alpha") for number in range(1, 100_000)]
    assert levels[0] == LEVEL
    assert levels == sorted(levels, reverse=True)
    assert sum(levels) < BUDGET
    assert sum(levels) > BUDGET / 2
    assert chance_of_error(levels) < sum(levels)


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=12).filter(lambda found: np.ptp(found) > 1e-6))
def test_optimism_is_a_mean_with_students_interval(excesses: list[float]) -> None:
    found = optimism(excesses)
    assert found is not None
    low, high = stats.t.interval(0.95, len(excesses) - 1, np.mean(excesses), stats.sem(excesses))
    assert (found.mean, found.low) == pytest.approx((np.mean(excesses), low), abs=1e-9)
    assert found.is_shown == (found.low > 0)
    assert math.isfinite(high)


def test_one_look_shows_no_optimism() -> None:
    assert optimism([]) is None
    assert optimism([0.5]) is None
