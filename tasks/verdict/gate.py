"""The verdict: whether the merge beats what it would replace, by enough, at no other metric's cost.

Models go by role. `last`, `best` and `champion` are opponents; the plain `average` is only shown.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from tasks.base.errors import BadInput
from tasks.base.records import Difference, EvaluatedModel, Evaluation, Verdict
from tasks.evaluation.results import TaskResult, full_name
from tasks.parameters.evaluation import EvaluateParams
from tasks.verdict.comparison import MERGE_ROLE, ResultsByRole, compare
from tasks.verdict.intervals import gains_of, items_needed

AVERAGE = "average"
OPPONENTS = ("champion", "best", "last")
"""When two are equally strong, the first of these is the one to beat."""

SIGNIFICANCE = 0.05
"""A few discordant 0/1 items can fool the bootstrap: PROMOTE also takes an exact test at this level."""

Decision = Literal["PROMOTE", "KEEP", "INCONCLUSIVE"]


def evaluate_results(
    models: Sequence[EvaluatedModel], results: ResultsByRole, params: EvaluateParams
) -> Evaluation:
    """Compare the merge with every other model and judge it; `results` has an entry for each role.

    Raises BadInput when the models did not answer the same items, or a metric asked for has no result.
    """
    scores, differences = compare(results, params.seed)
    return Evaluation(
        primary=full_name(results[MERGE_ROLE], params.primary, "evaluate.primary"),
        models=tuple(models),
        scores=scores,
        differences=differences,
        verdict=judge(models, results, differences, params),
    )


def judge(
    models: Sequence[EvaluatedModel],
    results: ResultsByRole,
    differences: Sequence[Difference],
    params: EvaluateParams,
) -> Verdict:
    """Weigh the merge against its strongest opponent on the primary metric."""
    primary = full_name(results[MERGE_ROLE], params.primary, "evaluate.primary")
    against = strongest_opponent(results, primary)
    found = {difference.metric: difference for difference in differences if difference.against == against}
    gain = found[primary]
    decision, reason = _decide(gain, _worse(found, primary, results[MERGE_ROLE], params), params.min_gain)
    needed = _needed(results, primary, against, params.min_gain) if decision == "INCONCLUSIVE" else None
    if needed:
        reason += f"; about {needed} items would settle it"
    label = next(model.label for model in models if model.role == against)
    sentence = f"{decision}: {_change(gain, label)}, {reason}"
    return Verdict(
        decision=decision,
        sentence=f"{sentence}{_beside_the_average(models, differences, gain)}.",
        against=against,
        primary=primary,
        items_needed=needed,
    )


def strongest_opponent(results: ResultsByRole, primary: str) -> str:
    """Return the role with the best mean on the primary metric among last, best and champion."""
    task, _, metric = primary.partition("/")
    opponents = [role for role in OPPONENTS if role in results]
    if not opponents:
        raise BadInput("nothing to compare the merge with: evaluate at least the last checkpoint too")
    sign = 1 if results[MERGE_ROLE][task].higher_is_better[metric] else -1
    return max(opponents, key=lambda role: sign * float(np.mean(results[role][task].values[metric])))


def _decide(gain: Difference, worse: Sequence[str], min_gain: float) -> tuple[Decision, str]:
    """Return the decision and the reason, as the rest of a sentence that gives the gain."""
    if gain.wins == gain.losses == 0:
        return "KEEP", "the two being equal on every item"
    if gain.gain.high <= min_gain:
        return "KEEP", f"so a gain of more than {_number(min_gain)} is ruled out"
    if gain.gain.low <= min_gain:
        return "INCONCLUSIVE", f"which leaves open whether it gains more than {_number(min_gain)}"
    if gain.p_value is not None and gain.p_value >= SIGNIFICANCE:
        few = f"{gain.wins} items won and {gain.losses} lost"
        return "INCONCLUSIVE", f"but {few} may be chance (exact p = {gain.p_value:.2g})"
    if worse:
        return "KEEP", f"but {' and '.join(worse)}"
    return "PROMOTE", "and nothing else worsens by more than its margin"


def _worse(
    found: Mapping[str, Difference], primary: str, merge: Mapping[str, TaskResult], params: EvaluateParams
) -> list[str]:
    """Describe every other metric whose mean worsens by more than its margin."""
    own = {full_name(merge, key, "evaluate.margins"): value for key, value in params.margins.items()}
    losses = {
        metric: (-found[metric].gain.mean, own.get(metric, params.margin))
        for metric in found
        if metric != primary
    }
    return [
        f"{metric} worsens by {_number(loss)}, more than its margin of {_number(margin)}"
        for metric, (loss, margin) in losses.items()
        if loss > margin
    ]


def _needed(results: ResultsByRole, primary: str, against: str, min_gain: float) -> int | None:
    task, _, metric = primary.partition("/")
    merge, other = results[MERGE_ROLE][task], results[against][task]
    gains = gains_of(merge.values[metric], other.values[metric], merge.higher_is_better[metric])
    return items_needed(gains, min_gain)


def _beside_the_average(
    models: Sequence[EvaluatedModel], differences: Sequence[Difference], gain: Difference
) -> str:
    """Say so when the merge beats its opponent, but not the average that costs nothing to compute."""
    digests = {model.role: model.digest for model in models}
    average = next((d for d in differences if d.against == AVERAGE and d.metric == gain.metric), None)
    if average is None or digests.get(AVERAGE) == digests.get(MERGE_ROLE) or gain.gain.mean <= 0:
        return ""
    if average.gain.mean <= 0:
        return "; the plain average of the same checkpoints is as good or better"
    if average.gain.low <= 0:
        return "; it is not shown to beat the plain average of the same checkpoints"
    return ""


def _change(difference: Difference, label: str) -> str:
    """Return the gain in words; "falls" would be ambiguous where lower is better."""
    gain, items = difference.gain, f"{difference.items} items"
    if gain.high < 0:
        change = f"worsens by {_number(-gain.mean)} [{_number(-gain.high)}, {_number(-gain.low)}] against"
    else:
        verb = "improves by" if gain.low > 0 else "gains"
        change = f"{verb} {_number(gain.mean)} [{_number(gain.low)}, {_number(gain.high)}] over"
    return f"{difference.metric} {change} {label} ({items})"


def _number(value: float) -> str:
    return f"{value + 0.0:.3g}"  # no "-0"
