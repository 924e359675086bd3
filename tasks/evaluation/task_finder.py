"""What the names of tasks, groups and tags stand for: specs, as lm-eval builds them, but without data."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tasks.base.errors import BadInput
from tasks.evaluation.hub_data import dataset_commit
from tasks.evaluation.samples import NLL
from tasks.evaluation.task_spec import Config, TaskSpec, aggregated, group_spec, read_task, task_spec

GROUP_KEYS = {"group", "group_alias", "task", "aggregate_metric_list", "metadata"}
"""What a group's file says of the group itself; everything else overrides what its tasks' files say."""


class TaskFinder:
    """Finds specs in an index of names, lm-eval's or that of a folder."""

    def __init__(self, index: Mapping[str, Any], include_path: Path | None) -> None:
        self._index = index
        self._include_path = include_path
        self._commit_of = cache(dataset_commit)

    def find(
        self, item: str | Config, overrides: Config, within: Sequence[str] = (), file: Path = Path()
    ) -> Iterator[TaskSpec]:
        """Yield what an item of evaluate.tasks or of a group's list stands for.

        `within`: the groups that it is in, the innermost last, whose file is `file`.
        Raises BadInput for unknown names, broken YAML, missing data files and groups that contain themselves.
        """
        own = {} if isinstance(item, str) else item
        name = item if isinstance(item, str) else str(item.get("group") or item.get("task"))
        changed = {**overrides, **{key: own[key] for key in own.keys() - {"task", "group"}}}
        entry = self._index.get(name)
        if name in within:
            raise BadInput("evaluate.tasks", f"the group {name} contains itself", "correct its file")
        if entry is None and "group" in own:
            yield from self._group(own, f"{within[-1]}::{name}", overrides, within, file)
        elif entry is None and own:
            yield task_spec(f"{within[-1]}::{name}", changed, file, self._commit_of)
        elif entry is None:
            raise self._unknown(name)
        elif entry.kind.name == "TAG":
            for task in sorted(entry.tags):
                yield from self.find(task, changed, (*within, name))
        elif entry.kind.name == "GROUP":
            yield from self._group(read_task(entry.yaml_path), name, changed, within, Path(entry.yaml_path))
        else:
            config = {**read_task(entry.yaml_path), **changed}
            yield task_spec(name, config, Path(entry.yaml_path), self._commit_of)

    def _group(
        self, group: Config, name: str, overrides: Config, within: Sequence[str], file: Path
    ) -> Iterator[TaskSpec]:
        """Yield a group with a metric of all its tasks as one spec; of another one what is in it."""
        down = {**{key: group[key] for key in group.keys() - GROUP_KEYS}, **overrides}
        listed = group.get("task") or []
        items = [listed] if isinstance(listed, str) else listed
        children = [child for item in items for child in self.find(item, down, (*within, name), file)]
        spec = group_spec(name, group, children)
        if any(_all_report(spec.members, str(own["metric"])) for own in aggregated(group)):
            yield spec
        else:
            yield from children

    def _unknown(self, name: str) -> BadInput:
        for path in sorted(self._include_path.rglob("*.yaml")) if self._include_path else ():
            read_task(path, resolve_functions=False)  # a broken file may be what should have defined it
        near = difflib.get_close_matches(name, self._index, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "see lm-eval's task list, or add a YAML file"
        return BadInput("evaluate.tasks", f"unknown task {name}", hint)


def _all_report(tasks: Sequence[TaskSpec], metric: str) -> bool:
    """Tell whether every task may report a metric; one whose file lists none has lm-eval's defaults."""
    listed = [task.config.get("metric_list") for task in tasks]
    named = [[getattr(own["metric"], "__name__", own["metric"]) for own in each] for each in listed if each]
    return metric == NLL or all(metric in names for names in named)
