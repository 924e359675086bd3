"""A vault confirms what gains there too and harms nothing; a split to choose on refuses what gains nothing."""

import numpy as np
import pytest

from tasks.base.records.evaluation import Evaluation
from tasks.verdict.confirmation import confirmed, refused, replaced_role
from tasks.verdict.wear import CONFIRMING
from tests.support.evaluated import ITEMS, PARAMS, evaluation_of, models_of, nll, result

BETTER = {"merge": result(nll=nll(0.0, 0)), "champion": result(nll=nll(0.3, 1))}


def held(vault: dict[str, dict[str, object]]) -> Evaluation:
    return confirmed(evaluation_of(BETTER), vault, PARAMS, CONFIRMING, 3)  # type: ignore[arg-type]


def test_the_one_that_would_be_replaced_is_held_against() -> None:
    assert replaced_role(models_of(["merge", "last", "best", "average"])) == "best"
    assert replaced_role(models_of(["merge", "last", "best", "champion"])) == "champion"


def test_a_gain_that_shows_again_is_confirmed() -> None:
    evaluation = held(BETTER)
    found = evaluation.verdict.confirmation
    assert evaluation.verdict.decision == "PROMOTE"
    assert found is not None
    assert (found.against, found.items, found.look) == ("champion", ITEMS, 3)
    assert found.excess == pytest.approx(0, abs=1e-12)
    assert f"({ITEMS} items, look 3)" in evaluation.verdict.sentence


@pytest.mark.parametrize("level", [0.0, -0.3])
def test_a_gain_that_does_not_is_left_open(level: float) -> None:
    again = {"merge": result(nll=nll(0.0, 0)), "champion": result(nll=nll(level, 1))}
    evaluation = held(again)
    assert evaluation.verdict.decision == "INCONCLUSIVE"
    assert evaluation.verdict.reason is not None
    assert evaluation.verdict.reason.rule == "not_confirmed"


def test_harm_that_shows_on_the_vault_alone_is_harm() -> None:
    right, wrong = np.ones(ITEMS), np.ones(ITEMS)
    wrong[:60] = 0
    again = {
        "merge": result(nll=nll(0.0, 0), acc=wrong),
        "champion": result(nll=nll(0.3, 1), acc=right),
    }
    evaluation = held(again)
    assert evaluation.verdict.decision == "KEEP"
    assert "on the vault another metric suffers" in evaluation.verdict.sentence
    assert "t/acc worsens by 0.2 against the champion" in evaluation.verdict.sentence


def test_what_gains_on_every_opponent_is_chosen() -> None:
    far = {**BETTER, "last": result(nll=nll(0.6, 2))}
    assert refused(models_of(far), far, PARAMS) is None
    near = {**BETTER, "last": result(nll=nll(-0.1, 2))}
    evaluation = refused(models_of(near), near, PARAMS)
    assert evaluation is not None
    assert (evaluation.verdict.decision, evaluation.verdict.against) == ("KEEP", "last")
    assert evaluation.decisive.gain.mean < 0
