"""What the parameters ask, and on which items: to judge, to confirm, and to choose."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tasks.base.errors import BadInput
from tasks.evaluation.item_split import document_keys, part_of
from tasks.evaluation.lm_eval_task import build_task, quiet
from tasks.evaluation.task_files import check_asked, check_tasks, load_tasks
from tasks.evaluation.task_spec import AskedSplits, ItemPart, Split, TaskSpec, leaves_of
from tasks.parameters.evaluation import EvaluateParams

BUT_THESE: dict[str, Any] = {"vault": (), "vault_share": None, "select_tasks": ()}


def splits_of(params: EvaluateParams) -> AskedSplits:
    """Return what the parameters ask; raises BadInput for what cannot be asked, before a model is loaded."""
    test = judging_split(params)
    return AskedSplits(test, confirming_split(params, test), choosing_split(params))


def judging_split(params: EvaluateParams) -> Split:
    """Return what the verdict rests on: the tasks, without the documents that are kept for the vault.

    Raises BadInput for what check_tasks refuses.
    """
    tasks = check_tasks(params)
    if params.vault_share is None:
        return Split(params, tasks)
    return Split(params, [part_of(task, ItemPart("test", params.vault_share)) for task in tasks])


def confirming_split(params: EvaluateParams, test: Split) -> Split | None:
    """Return what confirms a PROMOTE; None without a vault.

    Raises BadInput for a vault's document that the other tasks have too: it would not be a vault's.
    """
    if params.vault_share is not None:
        part = ItemPart("vault", params.vault_share)
        return Split(params, [part_of(task, part) for task in check_tasks(params)])
    if not params.vault:
        return None
    vault, select = _of(params, params.vault), choosing_split(params)
    elsewhere = [*test.tasks, *(select.tasks if select else [])]
    if shared := _shared_documents(vault.tasks, elsewhere, params):
        listed = ", ".join(f"{count} of {name}" for name, count in shared.items())
        raise BadInput(
            "evaluate.vault", f"documents are asked elsewhere too: {listed}", "take documents that are not"
        )
    return vault


def choosing_split(params: EvaluateParams) -> Split | None:
    """Return what is chosen on, before a look at the test items is spent; None without such tasks."""
    return _of(params, params.select_tasks) if params.select_tasks else None


def searching_split(params: EvaluateParams) -> Split:
    """Return what many merges are chosen on.

    Raises BadInput without such tasks, and where the test tasks have some of their documents.
    """
    if not params.select_tasks:
        raise BadInput("search.budget", "there is nothing to choose on", "set evaluate.select_tasks")
    return _apart(params)


def calibrating_split(params: EvaluateParams, method: str) -> Split:
    """Return what a merge method measures checkpoints on; raises BadInput as searching_split does."""
    if not params.select_tasks:
        raise BadInput(
            "merge.method",
            f"{method} measures every checkpoint on text, and there is none",
            "set evaluate.select_tasks or merge.calibration.file",
        )
    return _apart(params)


def _apart(params: EvaluateParams) -> Split:
    """Return the select tasks, none of whose documents the test tasks have."""
    split = _of(params, params.select_tasks)
    if shared := _shared_documents(split.tasks, judging_split(params).tasks, params):
        listed = ", ".join(f"{count} of {name}" for name, count in shared.items())
        raise BadInput(
            "evaluate.select_tasks",
            f"documents are asked elsewhere too: {listed}",
            "take documents that are not",
        )
    return split


def _of(params: EvaluateParams, names: tuple[str, ...]) -> Split:
    """Return other tasks, the first of which has the primary metric; no metric has margins of its own."""
    metric = params.primary.partition("/")[2]
    changed = {"tasks": names, "primary": f"{names[0]}/{metric}", "margins": {}, "guard_strictly": ()}
    asked = params.model_copy(update=changed | BUT_THESE | {"cluster": _clusters(params, names)})
    tasks = load_tasks(names, Path(params.include_path) if params.include_path else None)
    check_asked(tasks, asked)
    return Split(asked, tasks)


def _clusters(params: EvaluateParams, names: tuple[str, ...]) -> str | dict[str, str] | None:
    if not isinstance(params.cluster, dict):
        return params.cluster
    return {name: field for name, field in params.cluster.items() if name in names}


def _shared_documents(
    tasks: Sequence[TaskSpec], others: Sequence[TaskSpec], params: EvaluateParams
) -> dict[str, int]:
    """Return how many documents each task shares with any of `others`, where it does."""
    with quiet(()):
        there = {key for other in leaves_of(others) for key in _keys(other, params)}
        found = {task.name: sum(key in there for key in _keys(task, params)) for task in leaves_of(tasks)}
    return {name: count for name, count in found.items() if count}


def _keys(task: TaskSpec, params: EvaluateParams) -> Iterator[str]:
    return document_keys(build_task(task, params).eval_docs)
