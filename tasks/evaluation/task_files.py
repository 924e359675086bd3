"""Finding tasks by name, and checking tasks and metrics before a model is loaded."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tasks.base.errors import BadInput
from tasks.evaluation import backends
from tasks.evaluation.task_spec import Config, TaskSpec, read_task, task_spec
from tasks.parameters.evaluation import EvaluateParams

MEMBERS_SHOWN = 8

PER_ITEM = {
    "loglikelihood": {"acc"},
    "multiple_choice": {"acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match"},
}
"""By output type, those of lm-eval's metrics that have one number per item; generation has many more."""


def load_tasks(names: Sequence[str], include_path: Path | None) -> list[TaskSpec]:
    """Find each named task, first below `include_path`, then among those that lm-eval ships.

    Raises BadInput for unknown names, groups, broken YAML and missing data files.
    """
    index = _index(include_path) if include_path else {}
    if not index.keys() >= set(names):
        index = {**_shipped(), **index}
    return [task_spec(name, _yaml_of(name, index, include_path)) for name in names]


def check_tasks(params: EvaluateParams) -> list[TaskSpec]:
    """Find the tasks of the parameters; raises BadInput for an unknown task, metric or backend."""
    backends.backend_named(params.backend)
    specs = load_tasks(params.tasks, Path(params.include_path) if params.include_path else None)
    check_asked(specs, params)
    return specs


def check_asked(tasks: Sequence[TaskSpec], params: EvaluateParams) -> None:
    """Raise BadInput for a metric of a task that is not evaluated, or that the task cannot report."""
    specs = {task.name: task for task in tasks}
    for key, name in named_metrics(params):
        task, _, metric = name.partition("/")
        if task not in specs:
            raise BadInput(
                key,
                f"{name} is of a task that is not in evaluate.tasks ({', '.join(specs)})",
                "add the task there",
            )
        known = _reported(specs[task].config)
        if known and metric not in known:
            raise BadInput(
                key, f"{task} does not report {metric}, only {', '.join(sorted(known))}", "take one of these"
            )


def named_metrics(params: EvaluateParams) -> Iterator[tuple[str, str]]:
    """Yield (key, task/metric) for every metric that the parameters name."""
    yield "evaluate.primary", params.primary
    for name in params.margins:
        yield "evaluate.margins", name


def _reported(config: Config) -> set[str] | None:
    """Return the metrics that a task will report; None where its file does not determine them."""
    metrics, kind = config.get("metric_list"), config.get("output_type")
    if not metrics or kind not in PER_ITEM or config.keys() & {"process_results", "filter_list", "class"}:
        return None
    return {"nll"} | (PER_ITEM[kind] & {str(metric["metric"]) for metric in metrics})


def _index(include_path: Path) -> dict[str, Any]:
    """Map names to lm-eval's index entries; files that it cannot read are left out."""
    if not include_path.is_dir():
        raise BadInput(
            "evaluate.include_path", f"{include_path} is not a directory", "name the one of the YAML files"
        )
    from lm_eval.tasks import TaskManager

    return dict(TaskManager(include_path=str(include_path), include_defaults=False).task_index)


@cache
def _shipped() -> dict[str, Any]:
    """Return lm-eval's own tasks: some 14 000 files, which take seconds to read."""
    from lm_eval.tasks import TaskManager

    return dict(TaskManager().task_index)


def _yaml_of(name: str, index: Mapping[str, Any], include_path: Path | None) -> Path:
    if name not in index:
        for path in sorted(include_path.rglob("*.yaml")) if include_path else ():
            read_task(path)  # a broken file may be what should have defined it
        near = difflib.get_close_matches(name, index, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "see lm-eval's task list, or add a YAML file"
        raise BadInput("evaluate.tasks", f"unknown task {name}", hint)
    members = list(_members(name, index))
    if members != [name]:
        more = f" and {len(members) - MEMBERS_SHOWN} more" if len(members) > MEMBERS_SHOWN else ""
        named = ", ".join(members[:MEMBERS_SHOWN]) + more
        raise BadInput(
            "evaluate.tasks", f"{name} is a group, which has no items of its own", f"name its tasks: {named}"
        )
    return Path(index[name].yaml_path)


def _members(name: str, index: Mapping[str, Any]) -> Iterator[str]:
    """Yield the tasks of a group or tag; a task is its own only member."""
    entry = index.get(name)
    if entry is None or (entry.yaml_path and "group" not in entry.cfg):
        yield name
        return
    for member in entry.cfg["task"] if entry.cfg else sorted(entry.tags):
        child = member if isinstance(member, str) else member.get("task") or member.get("group")
        if isinstance(child, str) and child != name:
            yield from _members(child, index)
