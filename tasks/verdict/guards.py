"""No harm: what all metrics but the deciding one show against the models that they are held to."""

from collections.abc import Mapping, Sequence

import numpy as np

from tasks.base.records.record import Interval
from tasks.base.records.score import EvaluatedModel
from tasks.base.records.verdict import Guard, GuardedMetric, Worsening
from tasks.evaluation.results import full_name
from tasks.parameters.evaluation import EvaluateParams
from tasks.verdict.comparison import MERGE_ROLE, ResultsByRole, pairs_of
from tasks.verdict.intervals import estimate_sum, found_with, influences, interval

REFERENCE = "reference"
GUARD_LEVEL = 0.05
"""One-sided, of a metric's bounds and the pooled ones; the veto shares it among the metrics (Bonferroni)."""


def guards_of(
    models: Sequence[EvaluatedModel],
    results: ResultsByRole,
    replaced: str,
    primary: str,
    params: EvaluateParams,
) -> tuple[Guard, ...]:
    """Compare the other metrics with the model that is replaced and with the reference, if it is another."""
    merge = results[MERGE_ROLE]
    own = {full_name(merge, key, "evaluate.margins"): value for key, value in params.margins.items()}
    strict = {full_name(merge, key, "evaluate.guard_strictly") for key in params.guard_strictly}
    names = [f"{task}/{metric}" for task, result in merge.items() for metric in result.values]
    margins = {name: own.get(name, params.margin) for name in names if name != primary}
    digests = {model.role: model.digest for model in models}
    held_to = [replaced]
    if REFERENCE in results and digests[REFERENCE] not in (digests[replaced], digests[MERGE_ROLE]):
        held_to.append(REFERENCE)
    return tuple(
        Guard(
            against=role,
            metrics=tuple(
                _guarded(results, role, name, margin, name in strict, veto=GUARD_LEVEL / len(margins))
                for name, margin in margins.items()
            ),
            pooled=_pooled(results, role, {name: margin for name, margin in margins.items() if margin > 0}),
        )
        for role in held_to
        if margins
    )


def worsened(guards: Sequence[Guard]) -> tuple[Worsening, ...]:
    """Return every metric that is shown to worsen and does so by more than its margin."""
    return tuple(
        Worsening(metric=each.metric, loss=-each.gain.mean, margin=each.margin, against=guard.against)
        for guard in guards
        for each in guard.metrics
        if each.worse
    )


def _guarded(
    results: ResultsByRole, against: str, name: str, margin: float, strict: bool, veto: float
) -> GuardedMetric:
    estimate = pairs_of(results, against, name).estimate
    return GuardedMetric(
        metric=name,
        margin=margin,
        gain=interval(estimate, GUARD_LEVEL),
        worse=interval(estimate, veto).high < 0 and estimate.mean < -margin,
        finds=found_with(estimate.error, GUARD_LEVEL),
        strict=strict,
    )


def _pooled(results: ResultsByRole, against: str, margins: Mapping[str, float]) -> Interval | None:
    """Return the mean gain over the metrics, each in units of its margin.

    What an item (or its cluster) moves is added up over all metrics that it has a part in: so metrics of one
    task are paired, and so are tasks that share items.
    """
    if not margins:
        return None
    total = 0.0
    moved: dict[str, float] = {}
    for name, margin in margins.items():
        pairs = pairs_of(results, against, name)
        units = pairs.clusters or results[MERGE_ROLE][name.partition("/")[0]].items
        mean, shares = influences(pairs.gains / (margin * len(margins)), pairs.weights)
        total += mean
        for unit, share in zip(units, shares.tolist(), strict=True):
            moved[unit] = moved.get(unit, 0.0) + share
    return interval(estimate_sum(total, np.array(list(moved.values()))), GUARD_LEVEL)
