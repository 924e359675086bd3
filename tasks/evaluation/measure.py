"""Measuring a model on tasks: it is loaded once, and only where results are missing."""

import contextlib
import logging
import os
import random
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from copy import deepcopy
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.base.errors import BadInput, LorelineError, Unavailable, brief
from tasks.base.records import digest_of
from tasks.evaluation import backends
from tasks.evaluation.result_cache import cache_path, load, store
from tasks.evaluation.results import TaskResult, full_name
from tasks.evaluation.samples import Sample, task_result
from tasks.evaluation.task_files import check_asked, named_metrics
from tasks.evaluation.task_spec import TaskSpec
from tasks.parameters.evaluation import EvaluateParams

if TYPE_CHECKING:
    from lm_eval.api.model import LM

CODE = 1
"""Part of the cache key; to be raised when what is kept of an lm-eval run changes."""

CHATTY = ("lm_eval", "datasets")


def evaluate_model(
    locate: Callable[[], Path], model_digest: str, tasks: Sequence[TaskSpec], params: EvaluateParams
) -> dict[str, TaskResult]:
    """Measure a model on every task, item by item, reusing the results of earlier runs.

    `locate` returns the model's directory; it is called only when a result is missing. The model is freed
    before this returns.
    Raises BadInput for metrics that no task reports, data that cannot be read and models that cannot be
    loaded, Unavailable when a data set's server does not answer.
    """
    check_asked(tasks, params)
    paths = result_paths(model_digest, tasks, params)
    results = _kept(paths)
    missing = [task for task in tasks if task.name not in results]
    with contextlib.closing(_measure(locate, missing, params)) as measured:
        for name, result in measured:
            store(paths[name], result)
            results[name] = result
    for key, metric in named_metrics(params):
        full_name(results, metric, key)
    return {task.name: results[task.name] for task in tasks}


def known_results(
    model_digest: str, tasks: Sequence[TaskSpec], params: EvaluateParams
) -> dict[str, TaskResult] | None:
    """Return the results of evaluate_model from disk alone; None when one is missing."""
    paths = result_paths(model_digest, tasks, params)
    results = _kept(paths)
    return results if results.keys() == paths.keys() else None


def result_paths(model_digest: str, tasks: Sequence[TaskSpec], params: EvaluateParams) -> dict[str, Path]:
    """Return the file of each task's result of a model."""
    settings = _settings(params)
    return {task.name: cache_path(digest_of([model_digest, task.digest, settings])) for task in tasks}


def _kept(paths: Mapping[str, Path]) -> dict[str, TaskResult]:
    return {name: result for name, path in paths.items() if (result := load(path))}


def _settings(params: EvaluateParams) -> dict[str, Any]:
    """Return the settings that decide the numbers, besides model and task."""
    chosen = params.model_dump(include={"limit", "num_fewshot", "seed"})
    # The default backend is left out, so that results from before there was a choice stay valid.
    named = params.model_dump(include={"backend"}, exclude_defaults=True)
    own = backends.backend_named(params.backend).settings(params)
    return {**chosen, **named, **own, "lm_eval": version("lm_eval"), "code": CODE}


def _measure(
    locate: Callable[[], Path], tasks: Sequence[TaskSpec], params: EvaluateParams
) -> Generator[tuple[str, TaskResult], None, None]:
    """Yield each task's result as soon as it is there; data is read first, because it fails sooner."""
    if not tasks:
        return
    backend = backends.backend_named(params.backend)
    with contextlib.ExitStack() as stack:
        with _quiet(backend.loggers):
            built = [_build(task) for task in tasks]
            model_dir = locate()
            model = backend(model_dir, params)
            stack.callback(model.free)
        for spec, task in zip(tasks, built, strict=True):
            with _quiet(backend.loggers, bars=sys.stderr.isatty()):
                samples = _samples(model, task, params, where=f"{model_dir} on {spec.name}")
            yield spec.name, task_result(task, samples)


def _build(spec: TaskSpec) -> Any:
    """Return lm-eval's task object, its data loaded."""
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
    return task


def _samples(model: backends.Backend, task: Any, params: EvaluateParams, where: str) -> list[Sample]:
    """Return what lm-eval logs per item; its failures become LorelineError."""
    try:
        return model.answer(lambda lm: _run(lm, task, params), where)
    except LorelineError:
        raise
    except Exception as error:
        raise LorelineError(
            where, f"lm-eval failed ({brief(error)})", "mend the task or the model, or leave one of them out"
        ) from error


def _run(lm: "LM", task: Any, params: EvaluateParams) -> list[Sample]:
    """Run one task with every seed set, so that results do not depend on what ran before."""
    import lm_eval
    import numpy as np
    import torch

    random.seed(params.seed)
    np.random.seed(params.seed)
    torch.manual_seed(params.seed)
    if task.get_config("num_fewshot") is None or (
        params.num_fewshot is not None and task.get_config("num_fewshot")
    ):
        task.set_config(key="num_fewshot", value=params.num_fewshot or 0)
    task.set_fewshot_seed(seed=params.seed)
    name = task.config.task
    found = lm_eval.evaluate(
        lm=lm,
        task_dict={"tasks": {name: task}, "groups": {}, "group_map": {}},
        limit=params.limit,
        bootstrap_iters=0,
        log_samples=True,
        fewshot_as_multiturn=False,
    )
    samples: list[Sample] = found["samples"][name]
    return samples


@contextlib.contextmanager
def _quiet(loggers: Sequence[str], bars: bool = False) -> Iterator[None]:
    """Silence lm-eval's logs and those of `loggers`, and progress bars unless someone is watching."""
    levels = {name: logging.getLogger(name).level for name in (*CHATTY, *loggers)}
    for name in levels:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with contextlib.ExitStack() as stack:
            if not bars:
                nowhere = stack.enter_context(Path(os.devnull).open("w"))
                stack.enter_context(contextlib.redirect_stderr(nowhere))
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
