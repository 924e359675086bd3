"""Measuring the tiny model on its three tasks, as the tests of this room do."""

from pathlib import Path
from typing import Any

from tasks.base.model_files import ModelFiles
from tasks.evaluation.measure import evaluate_model
from tasks.evaluation.results import TaskResult
from tasks.evaluation.task_files import load_tasks
from tasks.parameters.evaluation import EvaluateParams
from tests.support.tiny_world import TASKS

ALL = tuple(TASKS)


def run(
    model: Path, folder: Path, tasks: tuple[str, ...] = ALL, primary: str | None = None, **chosen: Any
) -> dict[str, TaskResult]:
    """Measure a model directory on tasks of a folder, in batches of four."""
    chosen = {"device": "cpu", "batch_size": 4, **chosen}
    params = EvaluateParams(tasks=tasks, primary=primary or f"{tasks[0]}/exact_match", **chosen)
    return evaluate_model(lambda: ModelFiles(model), "digest", load_tasks(tasks, folder), params)
