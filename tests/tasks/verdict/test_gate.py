"""The verdict follows from the numbers, and says no more than they do."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.base.errors import BadInput
from tests.support.evaluated import HARD, ITEMS, NOISE, evaluation_of, nll, result, verdict_of


def rule_of(results, **chosen):
    """Return the decision and the rule behind it."""
    verdict = verdict_of(results, **chosen)
    return verdict.decision, verdict.reason.rule


def answers(right, items=ITEMS):
    return (np.arange(items) < right).astype(float)


class TestOneOpponent:
    def test_a_clear_gain_is_promoted(self):
        assert rule_of({"merge": result(nll=nll(0.0, 0)), "last": result(nll=nll(0.3, 1))}) == (
            "PROMOTE",
            "better",
        )

    def test_a_clear_loss_is_not(self):
        assert rule_of({"merge": result(nll=nll(0.3, 0)), "last": result(nll=nll(0.0, 1))}) == (
            "KEEP",
            "gain_ruled_out",
        )

    def test_a_gain_below_the_bar_is_ruled_out(self):
        results = {"merge": result(nll=nll(0.0, 0)), "last": result(nll=nll(0.3, 1))}
        assert rule_of(results, min_gain=0.5) == ("KEEP", "gain_ruled_out")

    def test_noise_is_inconclusive_and_says_what_these_items_find(self):
        """The gain that is found, by hand from the spread of the differences."""
        verdict = verdict_of({"merge": result(nll=nll(0.0, 0)), "last": result(nll=nll(0.005, 1))})
        assert (verdict.decision, verdict.reason.rule) == ("INCONCLUSIVE", "gain_open")
        spread = np.std(nll(0.005, 1) - nll(0.0, 0), ddof=1)
        assert verdict.finds == pytest.approx(2.8 * spread / np.sqrt(ITEMS), rel=1e-3)

    def test_equal_answers_are_no_reason_to_change_however_few(self):
        for items in (2, ITEMS):
            same = result(nll=nll(0, 0)[:items])
            assert rule_of({"merge": same, "last": same}) == ("KEEP", "equal")

    @pytest.mark.parametrize("wins", [4, -4])
    def test_four_lucky_or_unlucky_items_decide_nothing(self, wins):
        """The interval alone would: it ends above (below) zero, but the exact p-value is 1/8."""
        few = answers(4, 2000)
        models = (few, 0 * few) if wins > 0 else (0 * few, few)
        evaluation = evaluation_of(
            {"merge": result(acc=models[0]), "last": result(acc=models[1])}, primary="t/acc"
        )
        gain = evaluation.decisive.gain
        assert gain.low > 0 if wins > 0 else gain.high < 0
        assert evaluation.decisive.p_value == pytest.approx(1 / 8)
        assert (evaluation.verdict.decision, evaluation.verdict.reason.rule) == (
            "INCONCLUSIVE",
            "may_be_chance",
        )

    @settings(max_examples=50, deadline=None)
    @given(st.floats(-0.5, 0.5), st.floats(0, 0.3))
    def test_promotion_implies_a_gain_above_the_bar_and_swapping_never_promotes_both(self, level, bar):
        left, right = result(nll=nll(level, 0)), result(nll=nll(0, 1))
        one = evaluation_of({"merge": left, "last": right}, min_gain=bar)
        two = evaluation_of({"merge": right, "last": left}, min_gain=bar)
        if one.verdict.decision == "PROMOTE":
            assert one.differences[0].gain.low > bar
            assert two.verdict.decision == "KEEP"


class TestWhatNeverPromotes:
    @pytest.mark.parametrize(
        ("items", "expected"), [(1, "too_few_items"), (99, "too_few_items"), (100, "better")]
    )
    def test_fewer_than_a_hundred_items(self, items, expected):
        results = {
            "merge": result(nll=nll(0.0, 0)[:items]),
            "last": result(nll=nll(1.0, 1)[:items]),
        }
        assert rule_of(results)[1] == expected

    @pytest.mark.parametrize(("clusters", "expected"), [(29, "too_few_clusters"), (30, "better")])
    def test_fewer_than_thirty_clusters(self, clusters, expected):
        names = tuple(str(item % clusters) for item in range(ITEMS))
        results = {
            role: {"t": result(nll=nll(level, noise))["t"].model_copy(update={"clusters": names})}
            for noise, (role, level) in enumerate((("merge", 0.0), ("last", 1.0)))
        }
        assert rule_of(results)[1] == expected

    def test_the_same_gain_on_every_item(self):
        """Also where adding it to each item rounds."""
        assert rule_of(
            {"merge": result(acc=answers(ITEMS)), "last": result(acc=answers(0))}, primary="t/acc"
        ) == (
            "INCONCLUSIVE",
            "constant_gain",
        )
        assert rule_of({"merge": result(nll=HARD), "last": result(nll=HARD + 0.1)})[1] == "constant_gain"


class TestEveryOpponent:
    def test_all_must_be_beaten_and_the_one_that_blocks_is_named(self):
        results = {
            "merge": result(nll=nll(0.0, 0)),
            "last": result(nll=nll(0.3, 1)),
            "best": result(nll=nll(-0.3, 2)),
            "champion": result(nll=nll(0.1, 3)),
        }
        verdict = verdict_of(results)
        assert (verdict.against, verdict.decision) == ("best", "KEEP")
        assert [(each.against, each.rule) for each in verdict.opponents] == [
            ("champion", "better"),
            ("best", "gain_ruled_out"),
            ("last", "better"),
        ]

    def test_a_strong_opponent_that_differs_little_does_not_hide_a_noisy_one(self):
        """The champion is 0.01 below `best` and far from the merge: the gain over it may be noise."""
        far = 6 * NOISE[3]
        results = {
            "merge": result(nll=nll(0.0, 0)),
            "best": result(nll=nll(0.0, 0) + 0.05 + 0.1 * NOISE[1]),
            "champion": result(nll=nll(0.06, 0) + far - far.mean()),
        }
        verdict = verdict_of(results)
        assert (verdict.against, verdict.decision) == ("champion", "INCONCLUSIVE")

    def test_when_promoted_the_strongest_is_named(self):
        results = {
            "merge": result(nll=nll(0.0, 0)),
            "last": result(nll=nll(0.3, 1)),
            "best": result(nll=nll(0.1, 2)),
            "champion": result(nll=nll(0.9, 3)),
        }
        verdict = verdict_of(results)
        assert (verdict.against, verdict.decision) == ("best", "PROMOTE")

    def test_of_two_equally_strong_the_champion_is_named(self):
        same = result(nll=nll(0.3, 1))
        assert (
            verdict_of({"merge": result(nll=nll(0, 0)), "last": same, "champion": same}).against == "champion"
        )

    def test_the_plain_average_is_an_opponent(self):
        results = {
            "merge": result(nll=nll(0.0, 0)),
            "last": result(nll=nll(0.3, 1)),
            "average": result(nll=nll(-0.3, 2)),
        }
        verdict = verdict_of(results)
        assert (verdict.against, verdict.decision) == ("average", "KEEP")

    @pytest.mark.parametrize(
        ("average", "beside"),
        [(nll(-0.3, 2), "no_better"), (nll(-0.005, 2), "not_shown_better"), (nll(0.2, 2), None)],
    )
    def test_where_it_need_not_be_beaten_it_is_named_when_it_is_not(self, average, beside):
        results = {
            "merge": result(nll=nll(0.0, 0)),
            "last": result(nll=nll(0.3, 1)),
            "average": result(nll=average),
        }
        verdict = verdict_of(results, beat_average=False)
        assert (verdict.against, verdict.decision, verdict.beside_average) == ("last", "PROMOTE", beside)
        assert ("average" in verdict.sentence) == (beside is not None)

    def test_without_an_opponent_there_is_no_verdict(self):
        with pytest.raises(BadInput, match="nothing to compare"):
            verdict_of({"merge": result(nll=nll(0, 0)), "average": result(nll=nll(0, 0))})
