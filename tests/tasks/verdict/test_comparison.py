"""Every model has every score, the merge every difference, and only like is compared with like."""

import numpy as np
import pytest

from tasks.base.errors import BadInput
from tasks.verdict.comparison import compare, pairs_of
from tests.support.evaluated import ITEMS, NOISE, evaluation_of, nll, result, verdict_of


def test_every_model_has_every_score_and_the_merge_every_difference():
    roles = ("merge", "last", "average")
    results = {role: result(nll=nll(level, level), acc=NOISE[level] > 0) for level, role in enumerate(roles)}
    scores, differences = compare(results)
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


def test_gains_are_per_item_and_positive_where_the_merge_is_better():
    results = {"merge": result(acc=np.array([1, 5]), nll=np.array([1, 5]))}
    results["last"] = result(acc=np.array([2, 2]), nll=np.array([2, 2]))
    assert pairs_of(results, "last", "t/acc").gains.tolist() == [-1, 3]
    assert pairs_of(results, "last", "t/nll").gains.tolist() == [1, -3]


def test_wins_and_losses_are_counted():
    results = {
        "merge": result(acc=np.array([1, 1, 1, 0, 0.0])),
        "last": result(acc=np.array([1, 0, 0, 1, 0.0])),
    }
    difference = compare(results)[1][0]
    assert (difference.wins, difference.losses, difference.items) == (2, 1, 5)


def test_items_of_a_cluster_are_not_taken_for_independent():
    """Ten copies of every item: the interval is that of the items once."""
    once, other = NOISE[0, :100], NOISE[1, :100]
    plain = compare({"merge": result(f1=once), "last": result(f1=other)})[1][0]
    clusters = tuple(str(item // 10) for item in range(1000))
    tenfold = {
        role: {"t": result(f1=np.repeat(values, 10))["t"].model_copy(update={"clusters": clusters})}
        for role, values in (("merge", once), ("last", other))
    }
    copied = compare(tenfold)[1][0]
    assert (copied.gain.low, copied.gain.high) == pytest.approx((plain.gain.low, plain.gain.high))


def test_weights_count_in_scores_and_gains():
    weights = (1.5,) * (ITEMS // 2) + (0.5,) * (ITEMS // 2)
    results = {
        role: {"t": result(f1=NOISE[n])["t"].model_copy(update={"weights": weights})}
        for n, role in enumerate(("merge", "last"))
    }
    scores, [difference] = compare(results)
    means = [float(np.average(NOISE[n], weights=weights)) for n in (0, 1)]
    assert [score.value.mean for score in scores] == pytest.approx(means)
    assert difference.gain.mean == pytest.approx(means[0] - means[1])


def test_other_items_or_clusters_are_refused_and_named():
    clustered = result(nll=nll(0, 1))["t"].model_copy(update={"clusters": ("a",) * ITEMS})
    results = {
        "merge": result(nll=nll(0, 0)),
        "last": result(nll=nll(0, 1)),
        "best": result(nll=nll(0, 1)[:-1]),
        "champion": {"t": clustered},
        "average": {"u": result(nll=nll(0, 1))["t"]},
    }
    with pytest.raises(
        BadInput, match=r"not evaluated on the same items.*: t \(best\), t \(champion\), t \(average\), u"
    ):
        verdict_of(results)


def test_a_primary_without_its_filter_is_the_first_filters():
    right, half = np.ones(200), np.arange(200) % 2
    evaluation = evaluation_of(
        {
            "merge": result(em__strict=right, em__loose=half),
            "last": result(em__strict=half, em__loose=half),
        },
        primary="t/em",
    )
    assert (evaluation.primary, evaluation.verdict.decision) == ("t/em,strict", "PROMOTE")
