"""Measuring a model on tasks: it is loaded once, and only where results are missing."""

import contextlib
import math
import random
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tasks.base.errors import BadInput, LorelineError, brief
from tasks.base.json_digest import digest_of
from tasks.base.model_files import ModelFiles
from tasks.evaluation import backends
from tasks.evaluation.answers import AnswerFile, RememberingModel
from tasks.evaluation.clusters import cluster_field
from tasks.evaluation.groups import group_result
from tasks.evaluation.item_split import places_in
from tasks.evaluation.lm_eval_task import build_task, quiet
from tasks.evaluation.result_cache import answers_path, cache_path, load, store
from tasks.evaluation.results import TaskResult, full_name
from tasks.evaluation.samples import Sample, task_result
from tasks.evaluation.task_files import check_asked, named_metrics
from tasks.evaluation.task_spec import TaskSpec, leaves_of
from tasks.parameters.evaluation import ASKED, EvaluateParams

if TYPE_CHECKING:
    from lm_eval.api.model import LM

CODE = 2
"""Part of the cache key; to be raised when what is kept of an lm-eval run changes."""

OnItems = Callable[[int, int], None]
"""Called with the items answered and how many there are, after every answer."""


def evaluate_model(
    locate: Callable[[], ModelFiles],
    model_digest: str,
    tasks: Sequence[TaskSpec],
    params: EvaluateParams,
    on_items: OnItems = lambda done, total: None,
) -> dict[str, TaskResult]:
    """Measure a model on every task and group, item by item, reusing the results of earlier runs.

    `locate` says where the model's files are; it is called only when a result is missing. The model is freed
    before this returns. Answers are kept as they come: after a kill the same call goes on at the next item.
    Raises BadInput for metrics that no task reports, data that cannot be read and models that cannot be
    loaded or asked, Unavailable when a data set's server does not answer.
    """
    check_asked(tasks, params)
    paths = result_paths(model_digest, tasks, params)
    results = _kept(paths)
    missing = {leaf.digest: leaf for leaf in leaves_of(tasks) if leaf.digest not in results}
    with contextlib.closing(_measure(locate, list(missing.values()), paths, params, on_items)) as measured:
        for digest, result in measured:
            store(paths[digest], result)
            results[digest] = result
    found = _named(tasks, results)
    for key, metric in named_metrics(params):
        full_name(found, metric, key)
    return found


def check_model(files: ModelFiles, tasks: Sequence[TaskSpec], params: EvaluateParams) -> None:
    """Raise BadInput for a model that cannot be asked these tasks; reads no weights."""
    leaves = {leaf.digest: leaf for leaf in leaves_of(tasks)}
    backends.backend_named(params.backend).check(files, list(leaves.values()), params)


def known_results(
    model_digest: str, tasks: Sequence[TaskSpec], params: EvaluateParams
) -> dict[str, TaskResult] | None:
    """Return the results of evaluate_model from disk alone; None when one is missing."""
    paths = result_paths(model_digest, tasks, params)
    results = _kept(paths)
    return _named(tasks, results) if results.keys() == paths.keys() else None


def result_paths(model_digest: str, tasks: Sequence[TaskSpec], params: EvaluateParams) -> dict[str, Path]:
    """Return the file of a model's result on each task, by the task's digest; groups have none."""
    settings = _settings(params)
    return {
        leaf.digest: cache_path(digest_of([model_digest, leaf.digest, cluster_field(leaf, params), settings]))
        for leaf in leaves_of(tasks)
    }


def _named(tasks: Sequence[TaskSpec], results: Mapping[str, TaskResult]) -> dict[str, TaskResult]:
    """Return the results of the tasks and groups that were asked for, from those of tasks by digest."""
    return {
        task.name: group_result(task, [results[member.digest] for member in task.members])
        if task.members
        else results[task.digest]
        for task in tasks
    }


def _kept(paths: Mapping[str, Path]) -> dict[str, TaskResult]:
    return {digest: result for digest, path in paths.items() if (result := load(path))}


def _settings(params: EvaluateParams) -> dict[str, Any]:
    """Return the settings that decide the numbers, besides model and task."""
    own = backends.backend_named(params.backend).settings(params)
    return {**params.model_dump(include=ASKED), **own, "lm_eval": version("lm_eval"), "code": CODE}


def _measure(
    locate: Callable[[], ModelFiles],
    tasks: Sequence[TaskSpec],
    paths: Mapping[str, Path],
    params: EvaluateParams,
    on_items: OnItems,
) -> Generator[tuple[str, TaskResult], None, None]:
    """Yield each task's digest and result as soon as it is there; data is read first: it fails sooner.

    A task's answers are removed when the next result is asked for: this one is stored by then.
    """
    if not tasks:
        return
    backend = backends.backend_named(params.backend)
    with contextlib.ExitStack() as stack:
        with quiet(backend.loggers):
            built = [build_task(task, params) for task in tasks]
            files = locate()
            backend.check(files, tasks, params)
            model = backend(files, params)
            stack.callback(model.free)
            places = [_places(spec, task, params) for spec, task in zip(tasks, built, strict=True)]
            sizes = [len(own) for own in places]
        for number, (spec, task, asked) in enumerate(zip(tasks, built, places, strict=True)):
            done, total = sum(sizes[:number]), sum(sizes)
            with contextlib.closing(AnswerFile(answers_path(paths[spec.digest]))) as answers:
                told = partial(_tell, on_items, done, total)
                remembering = partial(RememberingModel, answers=answers, on_items=told)
                chosen = {"samples": {spec.name: asked}} if spec.part else {"limit": params.limit}
                with quiet(backend.loggers):
                    samples = _samples(
                        model, remembering, task, chosen, params, where=f"{files.directory} on {spec.name}"
                    )
                yield spec.digest, task_result(task, samples, cluster_field(spec, params))
                answers.remove()


def _tell(on_items: OnItems, before: int, total: int, answered: int) -> None:
    on_items(before + answered, total)


def _places(spec: TaskSpec, task: Any, params: EvaluateParams) -> list[int]:
    """Return the positions of the documents that are asked: those of the task's part, up to the limit."""
    documents = task.eval_docs
    there = (
        places_in(documents, spec.part, cluster_field(spec, params))
        if spec.part
        else list(range(len(documents)))
    )
    if not there:
        raise BadInput("evaluate.vault_share", f"{spec.name} has no document left", "choose another share")
    limit = params.limit
    if isinstance(limit, float):
        return there[: math.ceil(limit * len(there))]
    return there[: limit or len(there)]


def _samples(
    model: backends.Backend,
    remembering: Callable[[Any], RememberingModel],
    task: Any,
    chosen: Mapping[str, Any],
    params: EvaluateParams,
    where: str,
) -> list[Sample]:
    """Return what lm-eval logs per item; its failures become LorelineError."""
    try:
        return model.answer(lambda lm: _run(remembering(lm), task, chosen, params), where)
    except LorelineError:
        raise
    except Exception as error:
        raise LorelineError(
            where, f"lm-eval failed ({brief(error)})", "mend the task or the model, or leave one of them out"
        ) from error


def _run(lm: RememberingModel, task: Any, chosen: Mapping[str, Any], params: EvaluateParams) -> list[Sample]:
    """Run one task on the `chosen` items, with every seed set: results do not depend on what ran before."""
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
        lm=cast("LM", lm),
        task_dict={"tasks": {name: task}, "groups": {}, "group_map": {}},
        **chosen,
        bootstrap_iters=0,
        log_samples=True,
        system_instruction=params.system_instruction,
        apply_chat_template=params.chat_template,
        fewshot_as_multiturn=params.fewshot_as_multiturn,
    )
    samples: list[Sample] = found["samples"][name]
    return samples
