"""The exact test counts every way in which the signs could have fallen."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from tasks.verdict.sign_test import sign_test


def gains(wins, losses, ties=3, win=1.0, loss=1.0):
    return np.array([win] * wins + [-loss] * losses + [0.0] * ties)


def test_without_clusters_it_is_mcnemars_exact_test():
    for wins, losses in product(range(8), repeat=2):
        found = sign_test(gains(wins, losses))
        n = wins + losses
        expected = stats.binomtest(wins, n).pvalue if n else 1.0
        assert found.two_sided == pytest.approx(expected)


def test_with_clusters_it_equals_the_enumeration_of_their_signs():
    rng = np.random.default_rng(1)
    for _ in range(20):
        values = rng.choice([-1.0, 0.0, 1.0], size=24)
        clusters = [str(c) for c in rng.integers(0, 8, size=24)]
        nets = [sum(v for v, c in zip(values, clusters, strict=True) if c == name) for name in set(clusters)]
        sums = [
            sum(s * abs(n) for s, n in zip(signs, nets, strict=True))
            for signs in product((-1, 1), repeat=len(nets))
        ]
        found = sign_test(values, clusters)
        assert found.at_least == pytest.approx(np.mean([each >= sum(nets) for each in sums]))
        assert found.at_most == pytest.approx(np.mean([each <= sum(nets) for each in sums]))


def test_items_that_repeat_each_other_are_no_new_evidence():
    """Six wins of one passage are one win."""
    assert sign_test(gains(6, 0, ties=0)).two_sided == pytest.approx(2 / 2**6)
    assert sign_test(gains(6, 0, ties=0), ["one passage"] * 6).two_sided == 1.0


def test_a_win_may_count_for_more_than_a_loss():
    """Wins of 3 and losses of 1: no gain on average is one win in four."""
    found = sign_test(gains(9, 11, win=3.0, loss=1.0))
    assert found.at_least == pytest.approx(stats.binom.sf(8, 20, 0.25))
    assert found.at_most == pytest.approx(stats.binom.cdf(9, 20, 0.25))


def test_the_bar_moves_the_chance_of_a_win():
    """Of 100 items 20 differ: a mean gain of 0.1 is 15 wins and 5 losses."""
    found = sign_test(gains(15, 5, ties=80), bar=0.1)
    assert found.at_least == pytest.approx(stats.binom.sf(14, 20, 0.75))
    assert sign_test(gains(2, 0, ties=98), bar=0.5).at_least == 1.0  # out of reach: no evidence for it


def test_gains_of_many_sizes_have_no_such_test():
    assert sign_test(np.array([0.1, 0.2, -0.1])) is None
    assert sign_test(np.array([0.3, 0.1 + 0.2, -0.1])) is not None  # the same but for rounding
