"""The gate: whether the merge beats every opponent by enough, without harm to other metrics.

Models are named by role. `champion`, `best` and `last` are opponents, of several runs each run's own average,
and so is the plain `average`, unless `evaluate.beat_average` is false: then it is only shown.
"""

from collections.abc import Sequence
from typing import Literal

from tasks.base.errors import BadInput
from tasks.base.records.evaluation import Evaluation
from tasks.base.records.score import Difference, EvaluatedModel
from tasks.base.records.verdict import GateRule, Guard, Reason, Standing, Verdict
from tasks.evaluation.results import full_name
from tasks.parameters.evaluation import EvaluateParams
from tasks.verdict.comparison import MERGE_ROLE, OF_RUN, OPPONENTS, ResultsByRole, compare, pairs_of
from tasks.verdict.guards import guards_of, worsened
from tasks.verdict.intervals import LEVEL, found_with
from tasks.verdict.sentence import with_sentence
from tasks.verdict.standing import DECISIONS, rule_against

AVERAGE = "average"


def evaluate_results(
    models: Sequence[EvaluatedModel], results: ResultsByRole, params: EvaluateParams, level: float = LEVEL
) -> Evaluation:
    """Compare the merge with every other model and judge it; `results` has an entry for each role.

    `level`, one-sided, is that at which every gain has to be shown.
    Raises BadInput when the models did not answer the same items, or a metric asked for has no result.
    """
    scores, differences = compare(results)
    return with_sentence(
        Evaluation(
            primary=full_name(results[MERGE_ROLE], params.primary, "evaluate.primary"),
            models=tuple(models),
            scores=scores,
            differences=differences,
            verdict=judge(models, results, differences, params, level),
        )
    )


def judge(
    models: Sequence[EvaluatedModel],
    results: ResultsByRole,
    differences: Sequence[Difference],
    params: EvaluateParams,
    level: float = LEVEL,
) -> Verdict:
    """Return the verdict on the merge against every opponent, without its sentence."""
    primary = full_name(results[MERGE_ROLE], params.primary, "evaluate.primary")
    opponents = _opponents(models, params)
    standings = tuple(
        Standing(against=role, rule=rule_against(pairs_of(results, role, primary), params.min_gain, level))
        for role in opponents
    )
    gains = {found.against: found for found in differences if found.metric == primary}
    decisive = _decisive(standings, gains)
    guards = guards_of(models, results, opponents[0], primary, params)
    rule = decisive.rule if decisive.rule != "better" else _harm(guards)
    return Verdict(
        decision=DECISIONS[rule],
        against=decisive.against,
        primary=primary,
        finds=found_with(pairs_of(results, decisive.against, primary).estimate.error, level),
        level=level,
        opponents=standings,
        guards=guards,
        reason=Reason(rule=rule, min_gain=params.min_gain, worsened=worsened(guards)),
        beside_average=None if AVERAGE in opponents else _beside_the_average(gains, decisive.against),
    )


def _opponents(models: Sequence[EvaluatedModel], params: EvaluateParams) -> list[str]:
    """Return the roles that the merge must beat, the one that it would replace first."""
    roles = {model.role for model in models}
    opponents = [role for role in OPPONENTS if role in roles]
    if not opponents:
        raise BadInput(
            "evaluate",
            "there is nothing to compare the merge with",
            "evaluate at least the last checkpoint too",
        )
    opponents += [model.role for model in models if model.role.startswith(OF_RUN)]
    return [*opponents, AVERAGE] if AVERAGE in roles and params.beat_average else opponents


def _decisive(standings: Sequence[Standing], gains: dict[str, Difference]) -> Standing:
    """Return the strongest opponent among those that speak for KEEP, else against PROMOTE, else of all."""
    order = ("KEEP", "INCONCLUSIVE", "PROMOTE")
    return min(standings, key=lambda each: (order.index(DECISIONS[each.rule]), gains[each.against].gain.mean))


def _harm(guards: Sequence[Guard]) -> GateRule:
    """Return what the other metrics say of a merge that is better on the deciding one."""
    if worsened(guards):
        return "others_worsen"
    if any(each.strict and not each.held for guard in guards for each in guard.metrics):
        return "guard_open"
    return "better" if all(guard.held for guard in guards) else "harm_open"


def _beside_the_average(
    gains: dict[str, Difference], against: str
) -> Literal["no_better", "not_shown_better"] | None:
    """Tell when the merge gains on its opponent but not on the plain average, which costs next to nothing."""
    average = gains.get(AVERAGE)
    if average is None or gains[against].gain.mean <= 0:
        return None
    if average.gain.mean <= 0:
        return "no_better"
    return "not_shown_better" if average.gain.low <= 0 else None
