"""Asking some of the items first, and the rest only of who does well on these."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tasks.evaluation.clusters import cluster_field
from tasks.evaluation.groups import group_result
from tasks.evaluation.item_split import part_of, places_in
from tasks.evaluation.lm_eval_task import build_task, quiet
from tasks.evaluation.results import TaskResult
from tasks.evaluation.task_spec import ItemPart, Split, TaskSpec, leaves_of

FEWEST_FIRST = 50
"""Items: on fewer, a standard error says little."""


class InTwo(NamedTuple):
    """The items of a split, those that are asked first and the rest; a group's tasks stand beside it."""

    first: Split
    rest: Split


def in_two(split: Split, share: float) -> InTwo | None:
    """Divide each task's items by their content; None where there is nothing to gain: few, or all at once."""
    if share == 1 or split.params.limit is not None:
        return None
    leaves, parts = leaves_of(split.tasks), (ItemPart("vault", share), ItemPart("test", share))
    counts = [[len(places) for places in _places(leaf, split, parts)] for leaf in leaves]
    if min(map(min, counts)) == 0 or sum(first for first, _ in counts) < FEWEST_FIRST:
        return None
    tasks = {task.name: task for task in [*split.tasks, *leaves]}.values()
    return InTwo(*(Split(split.params, [part_of(task, part) for task in tasks]) for part in parts))


def of_both_parts(
    split: Split, first: Mapping[str, TaskResult], rest: Mapping[str, TaskResult]
) -> dict[str, TaskResult]:
    """Return the results on all items from those on the two parts."""
    both = {leaf.name: _both(first[leaf.name], rest[leaf.name]) for leaf in leaves_of(split.tasks)}
    return {
        task.name: group_result(task, [both[member.name] for member in task.members])
        if task.members
        else both[task.name]
        for task in split.tasks
    }


def _places(leaf: TaskSpec, split: Split, parts: Sequence[ItemPart]) -> list[list[int]]:
    with quiet(()):
        documents = build_task(leaf, split.params).eval_docs
    return [places_in(documents, part, cluster_field(leaf, split.params)) for part in parts]


def _both(first: TaskResult, rest: TaskResult) -> TaskResult:
    return first.model_copy(
        update={
            "items": first.items + rest.items,
            "values": {metric: values + rest.values[metric] for metric, values in first.values.items()},
            "clusters": first.clusters + rest.clusters,
        }
    )
