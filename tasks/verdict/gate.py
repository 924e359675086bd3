"""The gate: whether the merge beats its strongest opponent by enough, without worsening other metrics.

Models are named by role. `last`, `best` and `champion` are opponents; the plain `average` is only shown.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from tasks.base.errors import BadInput
from tasks.base.records import (
    Decision,
    Difference,
    EvaluatedModel,
    Evaluation,
    GateRule,
    Reason,
    Verdict,
    Worsening,
)
from tasks.evaluation.results import TaskResult, full_name
from tasks.parameters.evaluation import EvaluateParams
from tasks.verdict.comparison import MERGE_ROLE, ResultsByRole, compare
from tasks.verdict.intervals import gains_of, items_needed
from tasks.verdict.sentence import with_sentence

AVERAGE = "average"
OPPONENTS = ("champion", "best", "last")
"""When two are equally strong, the first of these is the one to beat."""

SIGNIFICANCE = 0.05
"""Level of the exact test that PROMOTE also needs: the bootstrap is too sure of few discordant items."""


def evaluate_results(
    models: Sequence[EvaluatedModel], results: ResultsByRole, params: EvaluateParams
) -> Evaluation:
    """Compare the merge with every other model and judge it; `results` has an entry for each role.

    Raises BadInput when the models did not answer the same items, or a metric asked for has no result.
    """
    scores, differences = compare(results, params.seed)
    return with_sentence(
        Evaluation(
            primary=full_name(results[MERGE_ROLE], params.primary, "evaluate.primary"),
            models=tuple(models),
            scores=scores,
            differences=differences,
            verdict=judge(models, results, differences, params),
        )
    )


def judge(
    models: Sequence[EvaluatedModel],
    results: ResultsByRole,
    differences: Sequence[Difference],
    params: EvaluateParams,
) -> Verdict:
    """Return the verdict on the merge against its strongest opponent, without its sentence."""
    primary = full_name(results[MERGE_ROLE], params.primary, "evaluate.primary")
    against = strongest_opponent(results, primary)
    found = {difference.metric: difference for difference in differences if difference.against == against}
    worsened = _worsened(found, primary, results[MERGE_ROLE], params)
    decision, rule = _decide(found[primary], worsened, params.min_gain)
    is_open = decision == "INCONCLUSIVE"
    return Verdict(
        decision=decision,
        against=against,
        primary=primary,
        items_needed=_needed(results, primary, against, params.min_gain) if is_open else None,
        reason=Reason(rule=rule, min_gain=params.min_gain, worsened=worsened),
        beside_average=_beside_the_average(models, differences, found[primary]),
    )


def strongest_opponent(results: ResultsByRole, primary: str) -> str:
    """Return the role with the best mean on the primary metric among last, best and champion."""
    task, _, metric = primary.partition("/")
    opponents = [role for role in OPPONENTS if role in results]
    if not opponents:
        raise BadInput(
            "evaluate",
            "there is nothing to compare the merge with",
            "evaluate at least the last checkpoint too",
        )
    sign = 1 if results[MERGE_ROLE][task].higher_is_better[metric] else -1
    return max(opponents, key=lambda role: sign * float(np.mean(results[role][task].values[metric])))


def _decide(gain: Difference, worsened: Sequence[Worsening], min_gain: float) -> tuple[Decision, GateRule]:
    """Apply the rules in order; the first that applies decides."""
    if gain.wins == gain.losses == 0:
        return "KEEP", "equal"
    if gain.gain.high <= min_gain:
        return "KEEP", "gain_ruled_out"
    if gain.gain.low <= min_gain:
        return "INCONCLUSIVE", "gain_open"
    if gain.p_value is not None and gain.p_value >= SIGNIFICANCE:
        return "INCONCLUSIVE", "may_be_chance"
    if worsened:
        return "KEEP", "others_worsen"
    return "PROMOTE", "better"


def _worsened(
    found: Mapping[str, Difference], primary: str, merge: Mapping[str, TaskResult], params: EvaluateParams
) -> tuple[Worsening, ...]:
    """Return every other metric whose mean worsens by more than its margin."""
    own = {full_name(merge, key, "evaluate.margins"): value for key, value in params.margins.items()}
    others = [
        Worsening(metric=metric, loss=-difference.gain.mean, margin=own.get(metric, params.margin))
        for metric, difference in found.items()
        if metric != primary
    ]
    return tuple(other for other in others if other.loss > other.margin)


def _needed(results: ResultsByRole, primary: str, against: str, min_gain: float) -> int | None:
    task, _, metric = primary.partition("/")
    merge, other = results[MERGE_ROLE][task], results[against][task]
    gains = gains_of(merge.values[metric], other.values[metric], merge.higher_is_better[metric])
    return items_needed(gains, min_gain)


def _beside_the_average(
    models: Sequence[EvaluatedModel], differences: Sequence[Difference], gain: Difference
) -> Literal["no_better", "not_shown_better"] | None:
    """Tell when the merge gains on its opponent but not on the plain average, which costs next to nothing."""
    digests = {model.role: model.digest for model in models}
    average = next((d for d in differences if d.against == AVERAGE and d.metric == gain.metric), None)
    if average is None or digests.get(AVERAGE) == digests.get(MERGE_ROLE) or gain.gain.mean <= 0:
        return None
    if average.gain.mean <= 0:
        return "no_better"
    return "not_shown_better" if average.gain.low <= 0 else None
