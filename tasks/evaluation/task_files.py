"""Finding tasks by name, and checking tasks and metrics before a model is loaded."""

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tasks.base.errors import BadInput, brief
from tasks.evaluation import backends
from tasks.evaluation.samples import NLL
from tasks.evaluation.task_finder import TaskFinder
from tasks.evaluation.task_spec import TaskSpec, aggregated
from tasks.parameters.evaluation import EvaluateParams

PER_ITEM = {
    "loglikelihood": {"acc"},
    "multiple_choice": {"acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match"},
}
"""By output type, those of lm-eval's metrics that have one number per item; generation has many more."""


def load_tasks(names: Sequence[str], include_path: Path | None) -> list[TaskSpec]:
    """Find each named task, first below `include_path`, then among those that lm-eval ships.

    A group that aggregates metrics is one spec with members; a tag, or a group that does not, stands for what
    is in it. Raises BadInput for unknown names, broken YAML and missing data files.
    """
    index = _index(include_path) if include_path else {}
    if not index.keys() >= set(names):
        index = {**_shipped(), **index}
    finder = TaskFinder(index, include_path)
    found: dict[str, TaskSpec] = {}
    for spec in (spec for name in names for spec in _find(finder, name)):
        if found.setdefault(spec.name, spec).digest != spec.digest:
            raise BadInput(
                "evaluate.tasks", f"two tasks are called {spec.name}", "rename one, or leave it out"
            )
    return list(found.values())


def check_tasks(params: EvaluateParams) -> list[TaskSpec]:
    """Find the tasks of the parameters; raises BadInput for an unknown task, metric or backend."""
    backends.backend_named(params.backend)
    specs = load_tasks(params.tasks, Path(params.include_path) if params.include_path else None)
    check_asked(specs, params)
    return specs


def check_asked(tasks: Sequence[TaskSpec], params: EvaluateParams) -> None:
    """Raise BadInput for settings that do not fit the tasks, such as a metric that none of them reports."""
    specs = {task.name: task for task in tasks}
    if params.fewshot_as_multiturn and not params.chat_template:
        raise BadInput(
            "evaluate.fewshot_as_multiturn", "needs a chat template", "set evaluate.chat_template: true"
        )
    leaves = {leaf.name for task in tasks for leaf in (task.members or (task,))}
    leaves |= {*params.vault, *params.select_tasks}
    for name in params.cluster if isinstance(params.cluster, dict) else ():
        if name not in leaves:
            raise BadInput("evaluate.cluster", f"{name} is no task that is evaluated", "correct its name")
    for key, name in named_metrics(params):
        task, _, metric = name.partition("/")
        if task not in specs:
            raise BadInput(
                key,
                f"{name} is of a task that is not in evaluate.tasks ({', '.join(specs)})",
                "add the task there",
            )
        known = _reported(specs[task])
        if known and metric not in known:
            raise BadInput(
                key, f"{task} does not report {metric}, only {', '.join(sorted(known))}", "take one of these"
            )


def named_metrics(params: EvaluateParams) -> Iterator[tuple[str, str]]:
    """Yield (key, task/metric) for every metric that the parameters name."""
    yield "evaluate.primary", params.primary
    for name in params.margins:
        yield "evaluate.margins", name
    for name in params.guard_strictly:
        yield "evaluate.guard_strictly", name


def _reported(task: TaskSpec) -> set[str] | None:
    """Return the metrics that a task or group will report; None where its file does not determine them."""
    if task.members:
        every = [found for member in task.members if (found := _reported(member))]
        if len(every) < len(task.members):
            return None
        return set.intersection(*every) & {NLL, *(str(own["metric"]) for own in aggregated(task.config))}
    config = task.config
    metrics, kind = config.get("metric_list"), config.get("output_type")
    if not metrics or kind not in PER_ITEM or config.keys() & {"process_results", "filter_list", "class"}:
        return None
    return {NLL} | (PER_ITEM[kind] & {str(metric["metric"]) for metric in metrics})


def _find(finder: TaskFinder, name: str) -> list[TaskSpec]:
    try:
        return list(finder.find(name, {}))
    except (TypeError, ValueError, AttributeError, KeyError, RecursionError) as error:
        raise BadInput(
            "evaluate.tasks", f"the file of {name} is not as lm-eval's ({brief(error)})", "correct it"
        ) from None


def _index(include_path: Path) -> dict[str, Any]:
    """Map names to lm-eval's index entries; files that it cannot read are left out."""
    if not include_path.is_dir():
        raise BadInput(
            "evaluate.include_path", f"{include_path} is not a directory", "name the one of the YAML files"
        )
    from lm_eval.tasks import TaskManager

    try:
        return dict(TaskManager(include_path=str(include_path), include_defaults=False).task_index)
    except Exception as error:  # whatever lm-eval makes of keys that are not as it expects them
        raise BadInput(
            "evaluate.include_path",
            f"a YAML file in {include_path} is no task's or group's ({brief(error)})",
            "correct it, or move it away",
        ) from None


@cache
def _shipped() -> dict[str, Any]:
    """Return lm-eval's own tasks: some 14 000 files, which take seconds to read."""
    from lm_eval.tasks import TaskManager

    return dict(TaskManager().task_index)
