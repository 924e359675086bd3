"""lm-eval's task objects, with their data loaded, and its logs silenced."""

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from tasks.base.errors import BadInput, Unavailable, brief
from tasks.evaluation.clusters import check_clusters, cluster_field
from tasks.evaluation.task_spec import TaskSpec
from tasks.parameters.evaluation import EvaluateParams

CHATTY = ("lm_eval", "datasets")


def build_task(spec: TaskSpec, params: EvaluateParams) -> Any:
    """Return lm-eval's task object, its data loaded, with the settings of the parameters."""
    from lm_eval.tasks import TaskManager

    try:
        task = TaskManager(include_defaults=False).load([deepcopy(spec.config)])["tasks"][spec.name]
    except ConnectionError as error:
        raise Unavailable(
            spec.name, f"its data set cannot be fetched ({brief(error)})", "try again"
        ) from error
    except Exception as error:
        raise BadInput(
            spec.name, f"lm-eval cannot set the task up ({brief(error)})", "correct its file or its data"
        ) from error
    if getattr(task, "UNSAFE_CODE", False):
        raise BadInput("evaluate.tasks", f"{spec.name} would run code that the model writes", "leave it out")
    if field := cluster_field(spec, params):
        check_clusters(spec.name, task.eval_docs, field)
    if task.get_config("output_type") == "generate_until":
        chosen = params.generation.model_dump(mode="json", exclude_none=True)
        task.set_config(key="generation_kwargs", value=chosen, update=True)
    return task


@contextlib.contextmanager
def quiet(loggers: Sequence[str]) -> Iterator[None]:
    """Silence the logs of lm-eval and of `loggers`, and their progress bars: on_items tells how far it is."""
    levels = {name: logging.getLogger(name).level for name in (*CHATTY, *loggers)}
    for name in levels:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
