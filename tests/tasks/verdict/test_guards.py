"""Other metrics must not suffer: a veto for each, and for all together a proof that they hold."""

import numpy as np
import pytest
from scipy import stats

from tasks.base.errors import BadInput
from tests.support.evaluated import evaluation_of, nll, result, verdict_of

ITEMS = 300
RIGHT = np.ones(ITEMS)


def answers(wins, losses):
    """0/1 values of the merge where the other model gets every second item right."""
    values = (np.arange(ITEMS) % 2).astype(float)
    values[0 : 2 * wins : 2] = 1
    values[1 : 2 * losses : 2] = 0
    return values


def models(wins=0, losses=0, **others):
    return {
        "merge": result(nll=nll(0, 0), acc=answers(wins, losses)),
        "last": result(nll=nll(0.3, 1), acc=answers(0, 0)),
        **others,
    }


def rule_of(results, **chosen):
    return verdict_of(results, **chosen).reason.rule


def test_a_metric_that_is_shown_to_worsen_by_more_than_its_margin_blocks():
    """Eight of 300 are 0.027; the one-sided bound at 5 % is below zero."""
    verdict = verdict_of(models(losses=8), margin=0.02)
    assert (verdict.decision, verdict.reason.rule) == ("KEEP", "others_worsen")
    [worse] = verdict.reason.worsened
    assert (worse.metric, worse.against, worse.margin) == ("t/acc", "last", 0.02)
    assert worse.loss == pytest.approx(8 / 300)


def test_within_its_margin_a_metric_may_worsen():
    """By 0.027, at most 0.042: shown to be a loss, and shown to be less than 0.05."""
    assert rule_of(models(losses=8), margin=0.05) == "better"


def test_what_may_be_noise_is_no_veto_and_no_proof():
    """As many lost as won leave 0.03 open either way: less than a margin of 0.05, more than one of 0.01."""
    verdict = verdict_of(models(wins=15, losses=15), margin=0.01)
    assert (verdict.decision, verdict.reason.rule, verdict.reason.worsened) == (
        "INCONCLUSIVE",
        "harm_open",
        (),
    )
    assert rule_of(models(wins=15, losses=15), margin=0.05) == "better"


def test_a_metric_can_have_a_margin_of_its_own():
    assert rule_of(models(losses=8), margin=0.02, margins={"t/acc": 0.05}) == "better"
    assert rule_of(models(losses=8), margin=0.05, margins={"t/acc": 0.02}) == "others_worsen"


def test_a_margin_of_zero_leaves_the_veto_alone():
    """There is no unit to pool in, and nothing but a gain could be shown to lose less than nothing."""
    assert rule_of(models(wins=8, losses=8), margin=0) == "better"
    assert rule_of(models(losses=8), margin=0) == "others_worsen"


def test_bounds_are_students_at_five_percent_one_sided():
    """By scipy, for gains without skewness."""
    [guard] = verdict_of(models(wins=12, losses=12), margin=0.05).guards
    gains = answers(12, 12) - answers(0, 0)
    t = stats.ttest_1samp(gains, 0).confidence_interval(0.9)
    [metric] = guard.metrics
    assert (metric.gain.low, metric.gain.high) == pytest.approx((t.low, t.high))
    # one metric pooled is that metric in units of its margin
    assert (guard.pooled.low, guard.pooled.high) == pytest.approx((t.low / 0.05, t.high / 0.05))
    assert metric.finds == pytest.approx(2.4865 * stats.sem(gains), rel=1e-3)


def test_pooled_metrics_of_one_task_are_paired_item_by_item():
    """One metric falls exactly where the other rises: together nothing is lost, and nothing is uncertain."""
    base = answers(0, 0)
    up, down = answers(20, 20), 2 * base - answers(20, 20)
    results = {
        "merge": result(nll=nll(0, 0), up=up, down=down),
        "last": result(nll=nll(0.3, 1), up=base, down=base),
    }
    [guard] = verdict_of(results).guards
    assert (guard.pooled.low, guard.pooled.high) == pytest.approx((0, 0), abs=1e-12)


def test_pooled_tasks_without_common_items_are_independent():
    """Against the sum of the two variances."""
    rng = np.random.default_rng(0)
    values = {name: rng.normal(0, 0.1, size=(2, items)) for name, items in (("u", 200), ("v", 400))}
    roles: dict[str, dict[str, object]] = {"merge": result(nll=nll(0, 0)), "last": result(nll=nll(0.3, 1))}
    for row, role in enumerate(roles):
        for name, columns in values.items():
            own = result(f1=columns[row])["t"]
            items = tuple(f"{name}{item}" for item in own.items)
            roles[role][name] = own.model_copy(update={"task": name, "items": items})
    [guard] = verdict_of(roles, margin=0.1, margins={"v/f1": 0.2}).guards
    gains = {name: columns[0] - columns[1] for name, columns in values.items()}
    mean = (gains["u"].mean() / 0.1 + gains["v"].mean() / 0.2) / 2
    error = np.hypot(stats.sem(gains["u"]) / 0.1, stats.sem(gains["v"]) / 0.2) / 2
    assert guard.pooled.mean == pytest.approx(mean)
    assert (guard.pooled.high - guard.pooled.low) / 2 == pytest.approx(1.648 * error, rel=0.03)


def test_one_metric_that_gains_does_not_pay_for_one_that_is_shown_to_lose():
    results = {
        "merge": result(nll=nll(0, 0), acc=answers(0, 20), em=answers(120, 0)),
        "last": result(nll=nll(0.3, 1), acc=answers(0, 0), em=answers(0, 0)),
    }
    assert rule_of(results, margin=0.02) == "others_worsen"


def test_a_strictly_guarded_metric_must_be_shown_to_hold_by_itself():
    """The pooled rule is content: the other metric gained."""
    results = {
        "merge": result(nll=nll(0, 0), acc=answers(15, 15), em=answers(60, 0)),
        "last": result(nll=nll(0.3, 1), acc=answers(0, 0), em=answers(0, 0)),
    }
    assert rule_of(results, margin=0.02) == "better"
    verdict = verdict_of(results, margin=0.02, guard_strictly=("t/acc",))
    assert (verdict.decision, verdict.reason.rule) == ("INCONCLUSIVE", "guard_open")
    assert rule_of(results, margin=0.02, guard_strictly=("t/em",)) == "better"


class TestHeldTo:
    def test_the_champion_even_where_another_is_stronger_on_the_deciding_metric(self):
        """A merge that beats `best`, the strongest, and loses 0.31 on acc against the champion."""
        results = {
            "merge": result(nll=nll(0, 0), acc=answers(0, 93)),
            "best": result(nll=nll(0.1, 1), acc=answers(0, 93)),
            "champion": result(nll=nll(0.3, 2), acc=answers(0, 0)),
        }
        verdict = verdict_of(results)
        assert (verdict.decision, verdict.reason.rule) == ("KEEP", "others_worsen")
        assert [guard.against for guard in verdict.guards] == ["champion"]

    def test_the_best_where_there_is_no_champion(self):
        results = models(losses=8, best=result(nll=nll(0.3, 2), acc=answers(0, 8)))
        assert rule_of(results, margin=0.02) == "better"
        assert verdict_of(results).guards[0].against == "best"

    def test_the_reference_beside_it(self):
        """Small losses against each champion have added up since the reference."""
        reference = result(nll=nll(0.9, 2), acc=answers(12, 0))
        results = models(losses=2, reference=reference)
        verdict = verdict_of(results, margin=0.02)
        assert (verdict.decision, verdict.reason.rule) == ("KEEP", "others_worsen")
        assert [worse.against for worse in verdict.reason.worsened] == ["reference"]
        assert [guard.against for guard in verdict.guards] == ["last", "reference"]

    def test_the_reference_is_no_opponent(self):
        results = models(reference=result(nll=nll(-0.9, 2), acc=answers(0, 0)))
        assert verdict_of(results, margin=0.02).decision == "PROMOTE"

    def test_a_reference_that_is_the_champion_is_asked_once(self):
        from tasks.base.records.score import EvaluatedModel
        from tasks.parameters.evaluation import EvaluateParams
        from tasks.verdict.gate import evaluate_results

        results = models()
        results["champion"] = results["reference"] = results["last"]
        known = [
            EvaluatedModel(role=role, label=role, digest=results[role]["t"].model_dump_json())
            for role in results
        ]
        params = EvaluateParams(tasks=("t",), primary="t/nll")
        verdict = evaluate_results(known, results, params).verdict
        assert [guard.against for guard in verdict.guards] == ["champion"]


@pytest.mark.parametrize("chosen", [{"margins": {"t/accuracy": 0.02}}, {"guard_strictly": ("t/accuracy",)}])
def test_a_guard_on_nothing_is_a_mistake(chosen):
    with pytest.raises(
        BadInput, match=rf"evaluate.{next(iter(chosen))}: no task reports t/accuracy; take one of"
    ):
        verdict_of(models(), **chosen)


def test_without_other_metrics_there_is_nothing_to_guard():
    evaluation = evaluation_of({"merge": result(nll=nll(0, 0)), "last": result(nll=nll(0.3, 1))})
    assert evaluation.verdict.guards == ()
