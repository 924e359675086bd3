"""Scores of every model, and paired differences between the merge and each other model."""

from collections.abc import Mapping

from tasks.base.errors import BadInput
from tasks.base.records import Difference, Score
from tasks.evaluation.results import TaskResult
from tasks.verdict.intervals import mean_interval, paired_gain

ResultsByRole = Mapping[str, Mapping[str, TaskResult]]
"""Role of the model → name of the task → result."""

MERGE_ROLE = "merge"


def compare(results: ResultsByRole, seed: int) -> tuple[tuple[Score, ...], tuple[Difference, ...]]:
    """Score every model on every metric, and the merge against every other; models are named by role.

    Raises BadInput when the models did not answer the same items.
    """
    _same_items(results)
    metrics = [(task, metric) for task, result in results[MERGE_ROLE].items() for metric in result.values]
    scores = tuple(
        Score(
            model=role,
            metric=f"{task}/{metric}",
            items=len(tasks[task].items),
            value=mean_interval(tasks[task].values[metric], seed),
        )
        for role, tasks in results.items()
        for task, metric in metrics
    )
    differences = tuple(
        _difference(role, metric, results[MERGE_ROLE][task], tasks[task], seed)
        for role, tasks in results.items()
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


def _questions(result: TaskResult) -> tuple[tuple[str, ...], dict[str, bool]]:
    return result.items, result.higher_is_better


def _difference(role: str, metric: str, merge: TaskResult, other: TaskResult, seed: int) -> Difference:
    paired = paired_gain(merge.values[metric], other.values[metric], merge.higher_is_better[metric], seed)
    return Difference(
        against=role,
        metric=f"{merge.task}/{metric}",
        items=len(merge.items),
        gain=paired.interval,
        p_value=paired.p_value,
        wins=paired.wins,
        losses=paired.losses,
    )
