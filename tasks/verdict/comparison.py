"""Scores of every model, and paired differences between the merge and each other model."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from tasks.base.errors import BadInput
from tasks.base.records.score import Difference, Score
from tasks.evaluation.results import TaskResult
from tasks.verdict.intervals import Estimate, ItemValues, estimate_mean, interval, score_interval
from tasks.verdict.sign_test import SignTest, sign_test

ResultsByRole = Mapping[str, Mapping[str, TaskResult]]
"""Role of the model → name of the task → result."""

MERGE_ROLE = "merge"
OPPONENTS = ("champion", "best", "last")
"""The first of these that there is, is what the merge would replace; the first of two equals decides."""


OF_RUN = "run-"
"""Begins the role of each of several runs, run-1 and so on: the plain average of its own checkpoints."""


class Pairs(NamedTuple):
    """The merge against another model on one metric, item by item; a positive gain: the merge is better."""

    gains: ItemValues
    clusters: tuple[str, ...]
    weights: tuple[float, ...]

    @property
    def estimate(self) -> Estimate:
        """Return the mean gain and its error."""
        return estimate_mean(self.gains, self.clusters, self.weights)

    @property
    def independent(self) -> int:
        """Return how many clusters there are, or items where each stands for itself."""
        return len(set(self.clusters)) or self.gains.size

    def sign_test(self, bar: float = 0.0) -> SignTest | None:
        """Test exactly whether the mean gain lies above `bar`, where there is such a test."""
        return sign_test(self.gains, self.clusters, bar)


def pairs_of(results: ResultsByRole, against: str, name: str) -> Pairs:
    """Pair the merge's items with those of another role on `name`, a task/metric."""
    task, _, metric = name.partition("/")
    merge, other = results[MERGE_ROLE][task], results[against][task]
    difference = np.asarray(merge.values[metric], float) - np.asarray(other.values[metric], float)
    gains: ItemValues = difference if merge.higher_is_better[metric] else -difference
    return Pairs(gains, merge.clusters, merge.weights)


def compare(results: ResultsByRole) -> tuple[tuple[Score, ...], tuple[Difference, ...]]:
    """Score every model on every metric, and the merge against every other; models are named by role.

    Raises BadInput when the models did not answer the same items.
    """
    _same_items(results)
    metrics = [(task, metric) for task, result in results[MERGE_ROLE].items() for metric in result.values]
    scores = tuple(
        _score(role, tasks[task], metric) for role, tasks in results.items() for task, metric in metrics
    )
    differences = tuple(
        _difference(role, f"{task}/{metric}", pairs_of(results, role, f"{task}/{metric}"))
        for role in results
        if role != MERGE_ROLE
        for task, metric in metrics
    )
    return scores, differences


def _same_items(results: ResultsByRole) -> None:
    """Raise BadInput unless all models answered the same items on the same metrics."""
    merge = results[MERGE_ROLE]
    odd = [
        f"{task} ({role})"
        for role, tasks in results.items()
        for task in sorted(merge.keys() | tasks.keys())
        if task not in merge or task not in tasks or _questions(tasks[task]) != _questions(merge[task])
    ]
    if odd:
        raise BadInput(
            "no verdict",
            f"these were not evaluated on the same items and metrics as the merge: {', '.join(odd)}",
            "evaluate all models with the same tasks, data and limit",
        )


def _questions(result: TaskResult) -> tuple[object, ...]:
    return result.items, result.higher_is_better, result.clusters, result.weights


def _score(role: str, result: TaskResult, metric: str) -> Score:
    return Score(
        model=role,
        metric=f"{result.task}/{metric}",
        items=len(result.items),
        value=score_interval(result.values[metric], result.clusters, result.weights),
    )


def _difference(role: str, metric: str, pairs: Pairs) -> Difference:
    test = pairs.sign_test()
    return Difference(
        against=role,
        metric=metric,
        items=pairs.gains.size,
        gain=interval(pairs.estimate),
        p_value=None if test is None else test.two_sided,
        wins=int((pairs.gains > 0).sum()),
        losses=int((pairs.gains < 0).sum()),
    )
