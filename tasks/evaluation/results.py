"""One model's result on one task, item by item."""

from collections.abc import Mapping
from typing import Self

from pydantic import FiniteFloat, model_validator

from tasks.base.errors import BadInput
from tasks.base.records.record import Record


class TaskResult(Record):
    """One model on one task: a value per item for every metric.

    A task with several filters has one metric for each, named `metric,filter`, in the task's order.
    """

    task: str
    items: tuple[str, ...]
    """Identity of each item: its prompt and its target."""
    values: dict[str, tuple[FiniteFloat, ...]]
    """Per metric, one value per item, in the order of `items`."""
    higher_is_better: dict[str, bool]
    clusters: tuple[str, ...] = ()
    """What each item belongs to, such as its passage; none where every item stands for itself."""
    weights: tuple[FiniteFloat, ...] = ()
    """What each item counts for in a mean, 1 on average; none where all count the same."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        optional = [len(each) for each in (self.clusters, self.weights) if each]
        lengths = {len(self.items), *optional, *map(len, self.values.values())}
        if len(lengths) > 1 or self.values.keys() != self.higher_is_better.keys():
            raise ValueError("metrics and items do not match")
        return self

    def metric(self, name: str) -> str | None:
        """Return the full name of a metric, the first filter's if none is named; None if not reported."""
        if name in self.values:
            return name
        return next((full for full in self.values if full.startswith(f"{name},")), None)


def full_name(results: Mapping[str, TaskResult], name: str, key: str) -> str:
    """Return the full task/metric that `name` stands for; BadInput names `key` and what there is."""
    task, _, metric = name.partition("/")
    full = results[task].metric(metric) if task in results else None
    if full is None:
        there = ", ".join(f"{task}/{metric}" for task, result in results.items() for metric in result.values)
        raise BadInput(key, f"no task reports {name}", f"take one of {there}")
    return f"{task}/{full}"
