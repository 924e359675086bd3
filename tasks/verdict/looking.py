"""Judging with every look counted: the items to choose on, then the test items, then the vault."""

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple

from tasks.base.json_digest import digest_of
from tasks.base.records.evaluation import Evaluation
from tasks.base.records.score import EvaluatedModel
from tasks.evaluation.task_spec import AskedSplits, Split
from tasks.registry.looks import Asked, Look, begin_look, looks_of, write_look
from tasks.registry.store import mlflow_errors
from tasks.verdict.comparison import MERGE_ROLE, OPPONENTS, ResultsByRole
from tasks.verdict.confirmation import confirmed, refused, replaced_role
from tasks.verdict.gate import evaluate_results
from tasks.verdict.sentence import with_sentence
from tasks.verdict.wear import CONFIRMING, chance_of_error, level_at

if TYPE_CHECKING:
    from mlflow import MlflowClient

MeasureSplit = Callable[[Split, Collection[str]], ResultsByRole]
"""Returns the results of models, by their roles, on a split; a role may be missing that has none here."""
JUDGING = {"primary", "min_gain", "beat_average", "margin", "margins", "guard_strictly", "reference"}
"""The parameters that decide what is made of the numbers: with others the same merge is looked at anew."""


class LookLedger(NamedTuple):
    """Where the looks are counted."""

    client: "MlflowClient"
    name: str
    """The registered model."""
    run: str
    """The training run that was merged."""


def judge_counted(
    models: Sequence[EvaluatedModel], splits: AskedSplits, ledger: LookLedger, measure: MeasureSplit
) -> tuple[Evaluation, ResultsByRole]:
    """Judge a merge, and return the evaluation with the results that it rests on.

    Items are measured only as far as the verdict needs them: a merge that gains nothing on those to choose on
    takes no look at the test items, and the vault is asked only what would be promoted.
    """
    roles = [model.role for model in models]
    if splits.select:
        chosen = [role for role in roles if role in (MERGE_ROLE, *OPPONENTS)]
        results = measure(splits.select, chosen)
        there = [model for model in models if model.role in results]
        if evaluation := refused(there, results, splits.select.params):
            return evaluation, results
    merge = next(model.digest for model in models if model.role == MERGE_ROLE)
    judgement = digest_of(splits.test.params.model_dump(include=JUDGING))
    asked = Asked(kind="test", items=splits.test.items, merge=merge, judgement=judgement)
    spending = splits.test.params.spending
    look = _begin(ledger, asked, lambda number: level_at(number, spending))
    results = measure(splits.test, roles)
    evaluation = evaluate_results(
        [model for model in models if model.role in results], results, splits.test.params, look.level
    )
    evaluation = _with_look(evaluation, ledger, look)
    if splits.vault and evaluation.verdict.decision == "PROMOTE":
        evaluation = _confirm(evaluation, splits.vault, ledger, asked, measure)
    verdict = evaluation.verdict
    _end(ledger, look.model_copy(update={"decision": verdict.decision, "gain": evaluation.decisive.gain}))
    return evaluation, results


def _confirm(
    evaluation: Evaluation, vault: Split, ledger: LookLedger, asked: Asked, measure: MeasureSplit
) -> Evaluation:
    role = replaced_role(evaluation.models)
    asked = asked.model_copy(update={"kind": "vault", "items": vault.items})
    look = _begin(ledger, asked, lambda number: CONFIRMING)
    results = measure(vault, [MERGE_ROLE, role])
    if role not in results:
        return evaluation
    evaluation = confirmed(evaluation, results, vault.params, look.level, look.number)
    found = evaluation.verdict.confirmation
    if found:
        decided = {"decision": evaluation.verdict.decision, "gain": found.gain, "excess": found.excess}
        _end(ledger, look.model_copy(update=decided))
    return evaluation


def _with_look(evaluation: Evaluation, ledger: LookLedger, look: Look) -> Evaluation:
    """Say how many looks these items have had, and what that makes of the chance of an error."""
    with mlflow_errors(ledger.client.tracking_uri):
        looks = looks_of(ledger.client, ledger.name)
    levels = [
        other.level
        for other in looks
        if other.asked.items == look.asked.items and other.number <= look.number
    ]
    found = {"look": look.number, "chance": chance_of_error(levels)}
    verdict = evaluation.verdict.model_copy(update=found)
    return with_sentence(evaluation.model_copy(update={"verdict": verdict}))


def _begin(ledger: LookLedger, asked: Asked, level: Callable[[int], float]) -> Look:
    with mlflow_errors(ledger.client.tracking_uri):
        return begin_look(ledger.client, ledger.name, asked, ledger.run, level)


def _end(ledger: LookLedger, look: Look) -> None:
    with mlflow_errors(ledger.client.tracking_uri):
        write_look(ledger.client, ledger.name, look)
