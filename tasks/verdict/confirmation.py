"""What other items say of a merge: a vault confirms a promotion, a split to choose on spares a look."""

from collections.abc import Sequence

from tasks.base.records.evaluation import Evaluation
from tasks.base.records.score import EvaluatedModel
from tasks.base.records.verdict import Confirmation, Reason, Standing, Verdict
from tasks.evaluation.results import full_name
from tasks.parameters.evaluation import EvaluateParams
from tasks.verdict.comparison import MERGE_ROLE, OPPONENTS, ResultsByRole, compare, pairs_of
from tasks.verdict.guards import guards_of, worsened
from tasks.verdict.intervals import interval
from tasks.verdict.sentence import with_sentence
from tasks.verdict.standing import DECISIONS


def replaced_role(models: Sequence[EvaluatedModel]) -> str:
    """Return the role of the model that the merge would replace."""
    roles = {model.role for model in models}
    return next(role for role in OPPONENTS if role in roles)


def confirmed(
    evaluation: Evaluation, results: ResultsByRole, params: EvaluateParams, level: float, look: int
) -> Evaluation:
    """Hold an evaluation that promotes to the vault's `results`, asked by `params` at a one-sided level.

    The gain over the model that would be replaced has to show there too, and no other metric to suffer.
    """
    role = replaced_role(evaluation.models)
    compare(results)  # on the same items
    primary = full_name(results[MERGE_ROLE], params.primary, "evaluate.primary")
    pairs = pairs_of(results, role, primary)
    gain = interval(pairs.estimate, level)
    tested = next(
        found.gain.mean
        for found in evaluation.differences
        if (found.against, found.metric) == (role, evaluation.primary)
    )
    found = Confirmation(
        against=role,
        items=pairs.gains.size,
        gain=gain,
        level=level,
        look=look,
        excess=tested - gain.mean,
        worsened=worsened(guards_of(evaluation.models, results, role, primary, params)),
    )
    verdict = evaluation.verdict.model_copy(update={"confirmation": found})
    if not found.holds:
        rule = "harm_on_vault" if found.worsened else "not_confirmed"
        reason = verdict.reason and verdict.reason.model_copy(update={"rule": rule})
        verdict = verdict.model_copy(update={"decision": DECISIONS[rule], "against": role, "reason": reason})  # type: ignore[index]
    return with_sentence(evaluation.model_copy(update={"verdict": verdict}))


def refused(
    models: Sequence[EvaluatedModel], results: ResultsByRole, params: EvaluateParams
) -> Evaluation | None:
    """Return the verdict on a merge that gains nothing on items to choose on; None where it does gain."""
    opponents = [role for role in OPPONENTS if role in results]
    primary = full_name(results[MERGE_ROLE], params.primary, "evaluate.primary")
    gains = {role: pairs_of(results, role, primary).estimate.mean for role in opponents}
    strongest = min(opponents, key=lambda role: gains[role])
    if gains[strongest] > 0:
        return None
    scores, differences = compare(results)
    return with_sentence(
        Evaluation(
            primary=primary,
            models=tuple(models),
            scores=scores,
            differences=differences,
            verdict=Verdict(
                decision=DECISIONS["not_chosen"],
                against=strongest,
                primary=primary,
                opponents=tuple(Standing(against=role, rule="not_chosen") for role in opponents),
                reason=Reason(rule="not_chosen", min_gain=0.0, worsened=()),
            ),
        )
    )
