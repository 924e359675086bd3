"""One model through lm-eval: loaded once, and only for what was not measured before."""

import contextlib
import logging
import os
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tasks.base.errors import BadInput, LorelineError, Unavailable
from tasks.base.records import digest_of
from tasks.base.threads import torch_threads_for
from tasks.evaluation.result_cache import cache_path, load, store
from tasks.evaluation.results import TaskResult, full_name, named_metrics
from tasks.evaluation.samples import task_result
from tasks.evaluation.task_files import TaskSpec, check_asked
from tasks.parameters.evaluation import EvaluateParams

CODE = 1
"""Raise it when what is kept of an lm-eval run changes: it is part of the cache key."""

CHATTY = ("lm_eval", "transformers", "datasets", "accelerate")

log = logging.getLogger(__name__)


def evaluate_model(
    locate: Callable[[], Path], model_digest: str, tasks: Sequence[TaskSpec], params: EvaluateParams
) -> dict[str, TaskResult]:
    """Measure a model on every task, item by item, reusing the results of earlier runs.

    `locate` returns the model's directory; it is asked only when something is left to measure.
    Raises BadInput for metrics that no task reports, data that cannot be read and models that cannot be
    loaded, Unavailable when a data set's server does not answer.
    """
    check_asked(tasks, params)
    paths = result_paths(model_digest, tasks, params)
    results = _kept(paths)
    missing = [task for task in tasks if task.name not in results]
    for name, result in _measure(locate, missing, params):
        store(paths[name], result)
        results[name] = result
    for key, metric in named_metrics(params):
        full_name(results, metric, key)
    return {task.name: results[task.name] for task in tasks}


def known_results(
    model_digest: str, tasks: Sequence[TaskSpec], params: EvaluateParams
) -> dict[str, TaskResult] | None:
    """Return what evaluate_model would without measuring anything; None when a task was not measured here."""
    paths = result_paths(model_digest, tasks, params)
    results = _kept(paths)
    return results if results.keys() == paths.keys() else None


def result_paths(model_digest: str, tasks: Sequence[TaskSpec], params: EvaluateParams) -> dict[str, Path]:
    """Return where each task's result of a model is kept."""
    settings = _settings(params)
    return {task.name: cache_path(digest_of([model_digest, task.digest, settings])) for task in tasks}


def _kept(paths: Mapping[str, Path]) -> dict[str, TaskResult]:
    return {name: result for name, path in paths.items() if (result := load(path))}


def _settings(params: EvaluateParams) -> dict[str, Any]:
    """Return what, besides model and task, decides the numbers."""
    import torch

    device = _device(params)
    kind = torch.cuda.get_device_name(device) if device.startswith("cuda") else device
    chosen = params.model_dump(include={"limit", "num_fewshot", "batch_size", "seed"})
    versions = {package: version(package) for package in ("lm_eval", "transformers", "torch")}
    return {**chosen, **versions, "device": kind, "dtype": "auto", "code": CODE}


def _device(params: EvaluateParams) -> str:
    import torch

    if params.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=params.device)
    except (RuntimeError, AssertionError) as error:
        raise BadInput(
            f"evaluate.device: {params.device} cannot be used here ({_brief(error)}); try auto"
        ) from None
    return params.device


def _measure(
    locate: Callable[[], Path], tasks: Sequence[TaskSpec], params: EvaluateParams
) -> Iterator[tuple[str, TaskResult]]:
    """Yield each task's result as soon as it is there; data is read before the model is."""
    if not tasks:
        return
    with _quiet():
        built = [_build(task) for task in tasks]
        model_dir = locate()
        model, tokenizer = _load(model_dir, _device(params))
    for spec, task in zip(tasks, built, strict=True):
        with _quiet(bars=sys.stderr.isatty()), torch_threads_for(model.num_parameters()):
            samples = _samples(model, tokenizer, task, params, where=f"{model_dir} on {spec.name}")
        yield spec.name, task_result(task, samples)


def _build(spec: TaskSpec) -> Any:
    """Return lm-eval's task object, its data loaded."""
    from lm_eval.tasks import TaskManager

    try:
        task = TaskManager(include_defaults=False).load([deepcopy(spec.config)])["tasks"][spec.name]
    except ConnectionError as error:
        raise Unavailable(
            f"{spec.name}: its data set cannot be fetched ({_brief(error)}); try again"
        ) from error
    except Exception as error:
        raise BadInput(
            f"{spec.name}: lm-eval cannot set the task up ({_brief(error)}); correct its file or its data"
        ) from error
    if getattr(task, "UNSAFE_CODE", False):
        raise BadInput(f"evaluate.tasks: {spec.name} would run code that the model writes; leave it out")
    return task


def _load(model_dir: Path, device: str) -> tuple[Any, Any]:
    """Return model and tokenizer; never code from the directory, never a pickle, never made-up weights."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    safe = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(model_dir, **safe)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            model_dir, dtype="auto", use_safetensors=True, output_loading_info=True, **safe
        )
    except Exception as error:
        raise BadInput(
            f"{model_dir}: cannot be loaded as a causal language model with its tokenizer ({_brief(error)})"
        ) from error
    model, info = loaded
    if info["missing_keys"]:
        names = ", ".join(sorted(info["missing_keys"])[:3])
        raise BadInput(f"{model_dir}: weights are missing, among them {names}; save or merge the model again")
    return model.to(device).eval(), tokenizer


def _samples(
    model: Any, tokenizer: Any, task: Any, params: EvaluateParams, where: str
) -> list[dict[str, Any]]:
    """Return what lm-eval logs per item; a batch that does not fit on the GPU is halved."""
    import torch

    batch_size = params.batch_size
    while batch_size:
        try:
            return _run(model, tokenizer, task, params, batch_size)
        except torch.OutOfMemoryError:
            log.warning("%s: batches of %d do not fit in GPU memory", where, batch_size)
        except Exception as error:
            raise LorelineError(f"{where}: lm-eval failed ({_brief(error)})") from error
        torch.cuda.empty_cache()
        batch_size //= 2
    raise LorelineError(f"{where}: not even one item fits in GPU memory; set evaluate.device to cpu")


def _run(
    model: Any, tokenizer: Any, task: Any, params: EvaluateParams, batch_size: int
) -> list[dict[str, Any]]:
    """Run one task with every seed pinned, so that it does not matter what ran before."""
    import lm_eval
    import numpy as np
    import torch
    from lm_eval.models.huggingface import HFLM

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
        lm=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size),
        task_dict={"tasks": {name: task}, "groups": {}, "group_map": {}},
        limit=params.limit,
        bootstrap_iters=0,
        log_samples=True,
        fewshot_as_multiturn=False,
    )
    samples: list[dict[str, Any]] = found["samples"][name]
    return samples


@contextlib.contextmanager
def _quiet(bars: bool = False) -> Iterator[None]:
    """Silence the libraries' logs, and their progress bars unless someone is watching."""
    levels = {name: logging.getLogger(name).level for name in CHATTY}
    for name in CHATTY:
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


def _brief(error: BaseException) -> str:
    """Return an error's kind and the first line of what it says."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
