"""The verdict follows from the numbers, and says no more than they do."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.base.errors import BadInput
from tasks.verdict import intervals
from tasks.verdict.gate import strongest_opponent
from tests.support.evaluated import ITEMS, evaluation_of, nll, result, verdict_of


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(intervals, "RESAMPLES", 999)


class TestDecision:
    def test_a_clear_gain_is_promoted(self):
        verdict = verdict_of({"merge": result(nll=nll(0.0, 0)), "last": result(nll=nll(0.3, 1))})
        assert verdict.decision == "PROMOTE"
        assert verdict.sentence.startswith("PROMOTE: t/nll improves by 0.3")
        assert verdict.sentence.endswith(
            "over the last (300 items), and nothing else worsens by more than its margin."
        )
        assert verdict.items_needed is None

    def test_a_clear_loss_is_not(self):
        verdict = verdict_of({"merge": result(nll=nll(0.3, 0)), "last": result(nll=nll(0.0, 1))})
        assert verdict.decision == "KEEP"
        assert "t/nll worsens by 0.3" in verdict.sentence
        assert "against the last" in verdict.sentence

    def test_a_gain_below_the_bar_is_ruled_out(self):
        verdict = verdict_of(
            {"merge": result(nll=nll(0.0, 0)), "last": result(nll=nll(0.3, 1))}, min_gain=0.5
        )
        assert verdict.decision == "KEEP"
        assert "a gain of more than 0.5 is ruled out" in verdict.sentence

    def test_noise_is_inconclusive_and_says_how_many_items_would_settle_it(self):
        verdict = verdict_of({"merge": result(nll=nll(0.0, 0)), "last": result(nll=nll(0.005, 1))})
        assert verdict.decision == "INCONCLUSIVE"
        assert verdict.items_needed
        assert verdict.items_needed > ITEMS
        assert f"about {verdict.items_needed} items would settle it" in verdict.sentence

    def test_equal_answers_are_no_reason_to_change(self):
        verdict = verdict_of({"merge": result(nll=nll(0, 0)), "last": result(nll=nll(0, 0))})
        assert verdict.decision == "KEEP"
        assert "equal on every item" in verdict.sentence

    def test_four_lucky_items_of_two_thousand_do_not_promote(self):
        """The bootstrap alone would: its lower end is above zero, but the exact p-value is 1/8."""
        zeros = np.zeros(2000)
        lucky = zeros.copy()
        lucky[:4] = 1
        evaluation = evaluation_of({"merge": result(acc=lucky), "last": result(acc=zeros)}, primary="t/acc")
        assert evaluation.differences[0].gain.low > 0
        assert evaluation.verdict.decision == "INCONCLUSIVE"
        assert "4 items won and 0 lost may be chance (exact p = 0.12)" in evaluation.verdict.sentence

    @settings(max_examples=30, deadline=None)
    @given(st.floats(-0.5, 0.5), st.floats(0, 0.3))
    def test_promotion_implies_a_gain_above_the_bar_and_swapping_never_promotes_both(self, level, bar):
        left, right = result(nll=nll(level, 0)), result(nll=nll(0, 1))
        one = evaluation_of({"merge": left, "last": right}, min_gain=bar)
        two = evaluation_of({"merge": right, "last": left}, min_gain=bar)
        if one.verdict.decision == "PROMOTE":
            assert one.differences[0].gain.low > bar
            assert two.verdict.decision == "KEEP"


class TestMargins:
    def make(self, fall):
        acc = np.ones(ITEMS)
        worse = acc.copy()
        worse[:fall] = 0
        return {
            "merge": result(nll=nll(0, 0), acc=worse),
            "last": result(nll=nll(0.3, 1), acc=acc),
        }

    def test_another_metric_may_fall_by_its_margin_and_no_more(self):
        """3 of 300 items are 0.01, 4 are more."""
        assert verdict_of(self.make(3), margin=0.01).decision == "PROMOTE"
        verdict = verdict_of(self.make(4), margin=0.01)
        assert verdict.decision == "KEEP"
        assert "t/acc worsens by 0.0133, more than its margin of 0.01" in verdict.sentence

    def test_a_metric_can_have_a_margin_of_its_own(self):
        assert verdict_of(self.make(4), margin=0.01, margins={"t/acc": 0.02}).decision == "PROMOTE"
        assert verdict_of(self.make(3), margin=0.01, margins={"t/acc": 0.0}).decision == "KEEP"

    def test_a_margin_for_nothing_is_a_mistake(self):
        with pytest.raises(BadInput, match=r"evaluate.margins: no task reports t/accuracy; take one of"):
            verdict_of(self.make(3), margins={"t/accuracy": 0.02})

    def test_a_fall_against_a_weaker_opponent_does_not_count(self):
        results = self.make(0) | {"best": result(nll=nll(0.9, 2), acc=np.ones(ITEMS))}
        results["last"]["t"] = result(nll=nll(0.3, 1), acc=np.zeros(ITEMS))["t"]
        results["merge"]["t"] = result(nll=nll(0, 0), acc=np.zeros(ITEMS))["t"]
        assert verdict_of(results).decision == "PROMOTE"


class TestOpponents:
    def test_the_strongest_counts(self):
        results = {
            "merge": result(nll=nll(0.0, 0)),
            "last": result(nll=nll(0.3, 1)),
            "best": result(nll=nll(-0.3, 2)),
            "champion": result(nll=nll(0.1, 3)),
        }
        verdict = verdict_of(results)
        assert (verdict.against, verdict.decision) == ("best", "KEEP")

    def test_the_strongest_is_the_highest_where_higher_is_better(self):
        strong, weak = result(acc=np.ones(9)), result(acc=np.zeros(9))
        for one, other, expected in ((strong, weak, "last"), (weak, strong, "best")):
            assert strongest_opponent({"merge": weak, "last": one, "best": other}, "t/acc") == expected

    def test_the_plain_average_is_no_opponent_but_is_named_when_it_does_as_well(self):
        results = {
            "merge": result(nll=nll(0.0, 0)),
            "last": result(nll=nll(0.3, 1)),
            "average": result(nll=nll(-0.3, 2)),
        }
        verdict = verdict_of(results)
        assert (verdict.against, verdict.decision) == ("last", "PROMOTE")
        assert verdict.sentence.endswith("; the plain average of the same checkpoints is as good or better.")

    def test_a_lead_on_the_average_that_may_be_noise_is_said_to_be_none(self):
        noise = np.where(np.arange(ITEMS) % 2, 0.2, -0.19)
        results = {
            "merge": result(nll=nll(0.0, 0)),
            "last": result(nll=nll(0.3, 1)),
            "average": result(nll=nll(0.0, 0) + noise),
        }
        assert "; it is not shown to beat the plain average" in verdict_of(results).sentence

    def test_a_merge_that_beats_the_average_is_not_held_against_it(self):
        results = {
            "merge": result(nll=nll(0.0, 0)),
            "last": result(nll=nll(0.3, 1)),
            "average": result(nll=nll(0.2, 2)),
        }
        assert "average" not in verdict_of(results).sentence

    def test_when_two_are_equally_strong_the_champion_is_the_one_to_beat(self):
        same = result(nll=nll(0.3, 1))
        assert strongest_opponent({"merge": same, "last": same, "champion": same}, "t/nll") == "champion"

    def test_without_an_opponent_there_is_no_verdict(self):
        with pytest.raises(BadInput, match="nothing to compare"):
            verdict_of({"merge": result(nll=nll(0, 0)), "average": result(nll=nll(0, 0))})
