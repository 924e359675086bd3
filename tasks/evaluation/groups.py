"""A group's result from those of its tasks, weighted as lm-eval aggregates metrics."""

from collections.abc import Sequence

from tasks.base.errors import BadInput
from tasks.evaluation.results import TaskResult
from tasks.evaluation.samples import NLL
from tasks.evaluation.task_spec import Config, TaskSpec, aggregated

MEMBERS_SHOWN = 8
MANY_MEMBERS = 30
"""Members from which on they are clusters; fewer say little of how much members differ."""


def group_result(group: TaskSpec, results: Sequence[TaskResult]) -> TaskResult:
    """Join the results of a group's members.

    Its metrics are those of aggregate_metric_list that every member reports, and nll where they all do. With
    weight_by_size (lm-eval's default) every item counts the same, without it every member.
    Raises BadInput where no metric is left, or where metrics of one group are weighted differently.
    """
    listed = aggregated(group.config)
    by_size = {bool(own.get("weight_by_size", True)) for own in listed}
    if len(by_size) > 1:
        raise BadInput(group.name, "weighs some metrics by size and some not", "make a group for each kind")
    names = {shown: own for one in listed for shown, own in _names(one, results).items()}
    if not names:
        more = len(group.members) - MEMBERS_SHOWN
        tasks = ", ".join(member.name for member in group.members[:MEMBERS_SHOWN])
        raise BadInput(
            group.name,
            "none of the metrics that it aggregates is reported by all of its tasks",
            f"name the tasks: {tasks}" + (f" and {more} more" if more > 0 else ""),
        )
    if all(NLL in result.values for result in results):
        names[NLL] = [NLL] * len(results)
    return TaskResult(
        task=group.name,
        items=tuple(item for result in results for item in result.items),
        values={
            shown: tuple(
                value for result, name in zip(results, own, strict=True) for value in result.values[name]
            )
            for shown, own in names.items()
        },
        higher_is_better={shown: results[0].higher_is_better[own[0]] for shown, own in names.items()},
        clusters=_clusters(results),
        weights=() if by_size == {True} else _equal_members(results),
    )


def _names(own: Config, results: Sequence[TaskResult]) -> dict[str, list[str]]:
    """Return what an entry of aggregate_metric_list is called, once for each filter → by each member.

    Without filter_list these are all filters. A member that has a single one does not name it.
    """
    metric, filters = str(own["metric"]), own.get("filter_list")
    if filters is None:
        there = {name.partition(",") for result in results for name in result.values}
        filters = sorted(name for found, _, name in there if found == metric)
    found = {
        name: _by_each(metric, name, results) for name in ([filters] if isinstance(filters, str) else filters)
    }
    full = {name: own for name, own in found.items() if own}
    return {f"{metric},{name}" if len(full) > 1 else metric: own for name, own in full.items()}


def _by_each(metric: str, name: str, results: Sequence[TaskResult]) -> list[str]:
    """Return the name of a metric and filter in each result; empty where one lacks it."""
    tried = (f"{metric},{name}", metric)
    own = [full for result in results for full in tried if full in result.values]
    return own if len(own) == len(results) else []


def _clusters(results: Sequence[TaskResult]) -> tuple[str, ...]:
    """Return what the items belong to: each member is a cluster where these are many.

    A few members are not drawn from many that could be asked as well: the group's mean is about them, and
    what varies are their items, or the clusters of these.
    """
    if len(results) >= MANY_MEMBERS:
        return tuple(result.task for result in results for _ in result.items)
    if not any(result.clusters for result in results):
        return ()
    return tuple(f"{result.task}: {own}" for result in results for own in (result.clusters or result.items))


def _equal_members(results: Sequence[TaskResult]) -> tuple[float, ...]:
    total = sum(len(result.items) for result in results)
    return tuple(total / (len(results) * len(result.items)) for result in results for _ in result.items)
