"""Every model has every score, the merge every difference, and only like is compared with like."""

import numpy as np
import pytest

from tasks.base.errors import BadInput
from tasks.verdict import intervals
from tasks.verdict.comparison import compare
from tests.support.evaluated import NOISE, evaluation_of, nll, result, verdict_of


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(intervals, "RESAMPLES", 999)


def test_every_model_has_every_score_and_the_merge_every_difference():
    roles = ("merge", "last", "average")
    results = {role: result(nll=nll(level, level), acc=NOISE[level] > 0) for level, role in enumerate(roles)}
    scores, differences = compare(results, seed=0)
    assert [(score.model, score.metric) for score in scores] == [
        (role, metric) for role in roles for metric in ("t/nll", "t/acc")
    ]
    assert [(difference.against, difference.metric) for difference in differences] == [
        (role, metric) for role in roles[1:] for metric in ("t/nll", "t/acc")
    ]
    for difference in differences:
        values = {score.model: score.value.mean for score in scores if score.metric == difference.metric}
        sign = -1 if difference.metric == "t/nll" else 1
        assert difference.gain.mean == pytest.approx(sign * (values["merge"] - values[difference.against]))
        assert (difference.p_value is None) == (difference.metric == "t/nll")


def test_other_items_are_refused_and_named():
    results = {
        "merge": result(nll=nll(0, 0)),
        "last": result(nll=nll(0, 1)),
        "best": result(nll=nll(0, 1)[:-1]),
        "average": {"u": result(nll=nll(0, 1))["t"]},
    }
    with pytest.raises(BadInput, match=r"not evaluated on the same items.*: t \(best\), t \(average\), u"):
        verdict_of(results)


def test_a_primary_without_its_filter_is_the_first_filters():
    right, wrong = np.ones(50), np.zeros(50)
    evaluation = evaluation_of(
        {
            "merge": result(em__strict=right, em__loose=right),
            "last": result(em__strict=wrong, em__loose=right),
        },
        primary="t/em",
    )
    assert (evaluation.primary, evaluation.verdict.decision) == ("t/em,strict", "PROMOTE")
