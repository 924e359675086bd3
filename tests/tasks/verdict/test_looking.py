"""Looks are counted once, asked for only as far as needed, and a vault keeps chance from being promoted."""

import subprocess
import sys
from collections.abc import Collection
from typing import Any

import numpy as np
import pytest

from tasks.base.records.evaluation import Evaluation
from tasks.base.records.score import EvaluatedModel
from tasks.evaluation.results import TaskResult
from tasks.evaluation.task_spec import AskedSplits, Split, TaskSpec
from tasks.parameters.evaluation import EvaluateParams
from tasks.parameters.registration import RegisterParams
from tasks.registry.looks import looks_of
from tasks.registry.store import connect
from tasks.verdict.comparison import ResultsByRole
from tasks.verdict.looking import LookLedger, judge_counted

ITEMS = 600
PARAMS = EvaluateParams(tasks=("t",), primary="t/acc")
KILLED = """
import os, sys
from tests.tasks.verdict import test_looking as here
from tasks.parameters.registration import RegisterParams
here.night(RegisterParams(name="demo"), {"merge": 0.6, "last": 0.5}, digest="killed", die=True)
"""


def split(name: str, params: EvaluateParams = PARAMS) -> Split:
    own = params.model_copy(update={"tasks": (name,), "primary": f"{name}/acc"})
    return Split(own, [TaskSpec(name, {}, f"{name} {params.limit}")])


def answers(task: str, rates: dict[str, float], seed: int) -> ResultsByRole:
    """Every model answers the same items, hard for all or easy for all, each with its own luck."""
    random = np.random.default_rng(seed)
    ease = random.normal(size=ITEMS)
    found = {}
    for role, rate in rates.items():
        skill = ease + 0.45 * random.normal(size=ITEMS)
        right = skill > np.quantile(ease, 1 - rate)
        result = TaskResult(
            task=task,
            items=tuple(map(str, range(ITEMS))),
            values={"acc": tuple(right.astype(float).tolist())},
            higher_is_better={"acc": True},
        )
        found[role] = {task: result}
    return found


def night(
    store: RegisterParams,
    rates: dict[str, float],
    *,
    digest: str = "merge",
    seed: int = 0,
    vault: dict[str, float] | None = None,
    select: dict[str, float] | None = None,
    params: EvaluateParams = PARAMS,
    die: bool = False,
) -> tuple[Evaluation, list[str]]:
    """Judge one merge; return the evaluation, and what was asked in order."""
    asked: list[str] = []

    def measure(asking: Split, roles: Collection[str]) -> ResultsByRole:
        if die:
            import os
            import signal

            os.kill(os.getpid(), signal.SIGKILL)
        task = asking.tasks[0].name
        asked.append(task)
        truth = {"t": rates, "v": vault, "s": select}[task] or {}
        found = answers(task, truth, seed + 1000 * len(task) + ord(task))
        return {role: found[role] for role in found if role in roles}

    splits = AskedSplits(
        split("t", params), split("v", params) if vault else None, split("s", params) if select else None
    )
    models = [
        EvaluatedModel(role=role, label=role, digest=digest if role == "merge" else role) for role in rates
    ]
    ledger = LookLedger(connect(store), "demo", f"run {digest}")
    evaluation, _ = judge_counted(models, splits, ledger, measure)
    return evaluation, asked


def counts(store: RegisterParams, kind: str = "test") -> list[int]:
    return [look.number for look in looks_of(connect(store), "demo") if look.asked.kind == kind]


def test_a_gain_is_confirmed_and_both_looks_are_on_record(store: RegisterParams) -> None:
    rates = {"champion": 0.5, "merge": 0.65}
    evaluation, asked = night(store, rates, vault=rates)
    verdict = evaluation.verdict
    assert (verdict.decision, asked) == ("PROMOTE", ["t", "v"])
    assert verdict.confirmation is not None
    assert verdict.confirmation.gain.low > 0
    gains = {look.asked.kind: look.gain for look in looks_of(connect(store), "demo")}
    assert gains == {"test": evaluation.decisive.gain, "vault": verdict.confirmation.gain}
    (excess,) = [look.excess for look in looks_of(connect(store), "demo") if look.excess is not None]
    tested = next(d.gain.mean for d in evaluation.differences if d.against == "champion")
    assert excess == pytest.approx(tested - verdict.confirmation.gain.mean)
    assert "On the vault it gains" in verdict.sentence
    assert "Look 1 at these items" in verdict.sentence


def test_what_the_vault_does_not_confirm_is_not_promoted(store: RegisterParams) -> None:
    evaluation, _ = night(store, {"champion": 0.5, "merge": 0.65}, vault={"champion": 0.5, "merge": 0.5})
    assert evaluation.verdict.decision == "INCONCLUSIVE"
    assert "but the vault does not confirm it" in evaluation.verdict.sentence


def test_the_vault_is_asked_only_what_would_be_promoted(store: RegisterParams) -> None:
    evaluation, asked = night(store, {"champion": 0.65, "merge": 0.5}, vault={"champion": 0.5, "merge": 0.9})
    assert (evaluation.verdict.decision, asked) == ("KEEP", ["t"])
    assert counts(store, "vault") == []


def test_what_gains_nothing_on_the_items_to_choose_on_takes_no_look(store: RegisterParams) -> None:
    rates = {"last": 0.5, "merge": 0.65}
    evaluation, asked = night(store, rates, select={"last": 0.65, "merge": 0.5})
    assert (evaluation.verdict.decision, asked) == ("KEEP", ["s"])
    assert "no look at the test items is taken" in evaluation.verdict.sentence
    assert counts(store) == []
    evaluation, asked = night(store, rates, select=rates)
    assert (evaluation.verdict.decision, asked) == ("PROMOTE", ["s", "t"])


def test_judged_again_is_the_same_look_and_the_same_words(store: RegisterParams) -> None:
    first, _ = night(store, {"last": 0.5, "merge": 0.65})
    night(store, {"last": 0.5, "merge": 0.65}, digest="other")
    assert night(store, {"last": 0.5, "merge": 0.65})[0] == first
    assert counts(store) == [1, 2]


def test_a_look_that_was_killed_counts(store: RegisterParams, own_state: Any) -> None:
    ended = subprocess.run([sys.executable, "-c", KILLED], check=False)
    assert ended.returncode == -9
    assert [look.decision for look in looks_of(connect(store), "demo")] == [None]
    night(store, {"last": 0.5, "merge": 0.65})
    night(store, {"last": 0.5, "merge": 0.65}, digest="killed")
    assert counts(store) == [1, 2]
    assert [look.decision for look in looks_of(connect(store), "demo")] == ["PROMOTE", "PROMOTE"]


def test_other_settings_have_looks_of_their_own(store: RegisterParams) -> None:
    rates = {"last": 0.5, "merge": 0.65}
    for digest in ("a", "b"):
        night(store, rates, digest=digest)
        night(store, rates, digest=digest, params=PARAMS.model_copy(update={"num_fewshot": 2}))
    assert sorted(counts(store)) == [1, 1, 2, 2]


def test_spending_asks_for_more_with_every_look(store: RegisterParams) -> None:
    spending = PARAMS.model_copy(update={"spending": "alpha"})
    rates = {"last": 0.5, "merge": 0.56}
    decisions = [
        night(store, rates, digest=str(look), seed=4, params=spending)[0].verdict for look in range(40)
    ]
    assert decisions[0].decision == "PROMOTE"
    assert decisions[-1].decision == "INCONCLUSIVE"
    assert "but at look 40 these items ask for" in decisions[-1].sentence
    assert decisions[-1].chance is not None
    assert decisions[-1].chance < 0.1
    assert [verdict.level for verdict in decisions] == sorted(
        (verdict.level for verdict in decisions), reverse=True
    )


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_of_thirty_nights_of_equals_at_most_one_is_promoted_and_what_is_better_is(
    store: RegisterParams, seed: int
) -> None:
    equals = {"champion": 0.5, "merge": 0.5}
    verdicts = [
        night(store, equals, digest=str(each), seed=1000 * seed + each, vault=equals)[0].verdict.decision
        for each in range(30)
    ]
    assert verdicts.count("PROMOTE") <= 1
    assert counts(store) == list(range(1, 31))
    better = {"champion": 0.5, "merge": 0.6}
    assert night(store, better, digest="better", seed=seed, vault=better)[0].verdict.decision == "PROMOTE"
