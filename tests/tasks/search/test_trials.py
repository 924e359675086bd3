"""The budget is kept, nothing is measured twice, and the first one stays unless it is beaten."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.search.candidate import Candidate, as_it_stands, plain_average, weighted
from tasks.search.greedy import greedy
from tasks.search.trials import Losses, Proposals, run_trials
from tests.support.trying import raced, whole


def proposing(*candidates: Candidate) -> Proposals:
    for candidate in candidates:
        yield [candidate]
    return "done"


def noisy(seed: int, spread: float = 1.0) -> Callable[[Candidate], Losses]:
    """Return losses that differ between candidates by chance alone."""
    random = np.random.default_rng(seed)
    hard = random.exponential(size=200)
    return lambda candidate: Losses(hard + spread * random.normal(size=200))


@given(st.integers(0, 5000))
def test_what_is_accepted_is_the_first_or_beats_it_by_more_than_an_error(seed: int) -> None:
    tried = run_trials(greedy([(1.0,)] * 5), plain_average(5), 10, whole(noisy(seed)))
    plain, best = tried.losses[tried.first].items, tried.losses[tried.best].items
    gains = plain - best
    error = gains.std(ddof=1) / math.sqrt(len(gains))
    beaten = bool(gains.mean() > error)
    assert (tried.accepted == tried.best) if beaten else (tried.accepted == tried.first)


def test_the_budget_is_kept_and_nothing_is_measured_twice() -> None:
    measured: list[Candidate] = []

    def measure(candidate: Candidate) -> Losses:
        measured.append(candidate)
        return Losses(np.arange(3.0) + len(measured))

    ones = [weighted([float(i == j) for i in range(4)]) for j in range(4)]
    tried = run_trials(
        proposing(ones[0], ones[0], plain_average(4), *ones), as_it_stands(4), 5, whole(measure)
    )
    assert measured == [as_it_stands(4), ones[0], plain_average(4), *ones[1:3]]
    assert list(tried.losses) == measured
    assert tried.said is None
    assert run_trials(proposing(ones[0]), as_it_stands(4), 4, whole(measure)).said == "done"


def test_who_proposes_only_what_is_known_comes_to_an_end() -> None:
    def stubborn() -> Proposals:
        while True:
            yield [plain_average(3)]

    assert len(run_trials(stubborn(), plain_average(3), 5, whole(noisy(0))).losses) == 1


def test_no_further_one_begins_when_there_was_enough() -> None:
    tried = run_trials(greedy([(1.0,)] * 5), plain_average(5), 10, whole(noisy(0)), enough=lambda: True)
    assert list(tried.losses) == [plain_average(5)]


@given(st.integers(0, 5000), st.integers(2, 6))
def test_a_greedy_soup_never_loses_more_than_the_best_checkpoint(seed: int, count: int) -> None:
    alone = [weighted([float(i == j) for i in range(count)]) for j in range(count)]
    tried = run_trials(
        greedy([(1.0,)] * count), plain_average(count), 2 * count, whole(noisy(seed, spread=0.1))
    )
    assert len(tried.losses) <= 2 * count
    assert tried.losses[tried.best].mean <= min(tried.losses[one].mean for one in alone)


def test_items_that_belong_together_count_as_one() -> None:
    gains = np.repeat([1.0, -0.8, 0.9, -0.7], 50)
    clusters = tuple(np.repeat(["a", "b", "c", "d"], 50).tolist())
    other = weighted([0.0, 1.0])

    def measure(candidate: Candidate) -> Losses:
        return Losses(np.zeros(200) if candidate == other else gains, clusters)

    assert run_trials(proposing(other), plain_average(2), 3, whole(measure)).accepted == plain_average(2)
    alone = run_trials(
        proposing(other), plain_average(2), 3, whole(lambda c: measure(c)._replace(clusters=()))
    )
    assert alone.accepted == other


@given(st.integers(0, 5000), st.floats(0.05, 3.0), st.sampled_from([20, 50, 150]))
def test_a_race_drops_whom_the_best_so_far_beats_on_the_first_items(
    seed: int, spread: float, first: int
) -> None:
    measure = noisy(seed, spread)
    known: dict[Candidate, Losses] = {}

    def remembered(candidate: Candidate) -> Losses:
        return known.setdefault(candidate, measure(candidate))

    tried = run_trials(greedy([(1.0,)] * 5), plain_average(5), 10, raced(remembered, first))
    best = tried.first
    for candidate, losses in tried.losses.items():
        gains = (known[best].items - known[candidate].items)[:first]
        error = gains.std(ddof=1) / math.sqrt(first)
        assert losses.dropped == (candidate != best and bool(-gains.mean() > error))
        assert losses.items.size == (first if losses.dropped else 200)
        told = tried.expected(candidate).mean
        if losses.dropped:
            plain = known[tried.first].items
            assert told == pytest.approx(plain.mean() - (plain - known[candidate].items)[:first].mean())
        else:
            assert told == known[candidate].items.mean()
            best = min(best, candidate, key=lambda one: known[one].items.mean())
    assert tried.best == best


def test_a_race_of_equals_drops_one_in_six() -> None:
    """One standard error on one side: by chance 16 % of those that are as good."""

    def of(seed: int) -> float:
        losses = run_trials(greedy([(1.0,)] * 5), plain_average(5), 2, raced(noisy(seed), 50)).losses
        return float(list(losses.values())[1].dropped)

    assert 0.1 < np.mean([of(seed) for seed in range(400)]) < 0.22


def test_as_many_are_measured_at_a_time_as_asked() -> None:
    sizes = []

    def measure(candidates: Sequence[Candidate], best: Losses | None) -> list[Losses]:
        sizes.append(len(candidates))
        return whole(noisy(len(sizes)))(candidates, best)

    run_trials(greedy([(1.0,)] * 5), plain_average(5), 9, measure, at_once=3)
    assert sizes == [1, 3, 2, 1, 1, 1]
    sizes.clear()
    assert len(run_trials(greedy([(1.0,)] * 5), plain_average(5), 3, measure, at_once=4).losses) == 3
    assert sizes == [1, 2]


def test_equal_weights_are_the_plain_average() -> None:
    assert weighted([0.25] * 4) == plain_average(4)
    assert str(weighted([0.5, 0.25, 0.25])) == "method average, weights [0.5, 0.25, 0.25] of 3"
    with pytest.raises(StopIteration):
        next(proposing())
