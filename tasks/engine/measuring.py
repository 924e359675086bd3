"""Measuring every checkpoint of a merge on text, before any tensor is merged.

Memory: the weights in float32, the activations of one text, and where gradients are needed that of one
tensor. The sums lie on the disk.
"""

import contextlib
import gc
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tasks.base.errors import BadInput, LorelineError, brief
from tasks.base.loading import load_causal_model, load_tokenizer
from tasks.base.threads import torch_threads_for
from tasks.checkpoints.prefixes import names_as_in
from tasks.checkpoints.weights import NotFinite, WeightReader, open_weights
from tasks.engine.devices import choose_devices
from tasks.engine.importance import INFORMATION
from tasks.engine.input_grams import GRAMS
from tasks.engine.plan import Plan
from tasks.engine.progress import TELL_EVERY_S, Headway, OnProgress
from tasks.engine.shards import open_shards
from tasks.engine.statistic import Statistic, Sums, Tensors

MOST_TOKENS = 2048
"""Of a text, or the model's context where that is less; the rest is left out."""
STATISTICS = {"gradients": INFORMATION, "inputs": GRAMS}


def with_measured(plan: Plan, scratch: Path, on_progress: OnProgress) -> Plan:
    """Measure every checkpoint on the plan's texts where the method wants it; return the plan with that.

    It is written into `scratch`; what a killed process finished there is taken as it is.
    Raises BadInput for models that transformers cannot load or measure, and NotFinite.
    """
    if plan.method.measures is None:
        return plan
    statistic = STATISTICS[plan.method.measures]
    tokenizer = load_tokenizer(plan.inputs[-1].directory)
    for place, source in enumerate(plan.inputs):
        done = scratch / str(place)
        if done.exists():
            continue
        part = scratch / "part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        label = f"measuring {source.label} ({place + 1} of {len(plan.inputs)})"
        _measure(plan, source, statistic, tokenizer, part, _telling(plan, label, on_progress))
        part.rename(done)
        gc.collect()  # transformers' models refer to themselves
    found = [open_weights(scratch / str(i), source.label) for i, source in enumerate(plan.inputs)]
    return replace(plan, measured=found)


def _telling(plan: Plan, label: str, on_progress: OnProgress) -> Callable[[int], None]:
    """Return what tells, now and then, how many texts are done."""
    told = -math.inf

    def tell(done: int) -> None:
        nonlocal told
        if time.monotonic() - told >= TELL_EVERY_S:
            told = time.monotonic()
            measuring = f"{label}: {done} of {len(plan.texts)} texts"
            on_progress(Headway("", 0, plan.bytes_written, 0, len(plan.spec), {}, measuring=measuring))

    return tell


def _measure(
    plan: Plan,
    source: WeightReader,
    statistic: Statistic,
    tokenizer: Any,
    directory: Path,
    tell: Callable[[int], None],
) -> None:
    """Write a checkpoint's statistic into a directory, as one safetensors file that is synced."""
    with _silent():
        model = load_causal_model(source.directory, "float32").eval()
    tensors = _tensors_of(model, plan.shapes, source.label)
    texts = _token_ids(tokenizer, plan.texts, model.config)
    spec = statistic.spec(model, tensors)
    with open_shards(directory, spec, sys.maxsize) as [shard]:
        sums = {
            name: np.memmap(shard.path, np.float32, "r+", shard.offsets[name], math.prod(stored.shape))
            for name, stored in spec.items()
        }
        model.to(choose_devices(plan.params.device, decomposes=True)[0])
        hooks = statistic.watch(model, tensors, sums)
        with torch_threads_for(model.num_parameters()):
            _compute(model, texts, tensors, statistic.of_gradients, source.label, tell)
        for hook in hooks:  # a parameter's keeps the model in memory, and no garbage collector sees it
            hook.remove()
        statistic.finish(sums)
        _check_finite(sums, source.label)
        for own in sums.values():
            own.flush()
        os.fsync(shard.handle)


def _tensors_of(model: Any, shapes: Mapping[str, tuple[int, ...]], label: str) -> dict[Any, str]:
    """Return parameter → the tensor that it is; a tied one has several names, and one of them is merged.

    Raises BadInput for a parameter that is no tensor of the merge: transformers joins some as it loads.
    """
    named = list(model.named_parameters(remove_duplicate=False))
    merged = names_as_in(shapes, [name for name, _ in named])
    found: dict[Any, str] = {}
    for name, parameter in named:
        tensor = merged.get(name, name)
        if shapes.get(tensor) == tuple(parameter.shape):
            found[parameter] = tensor
    if lost := [name for name, parameter in named if parameter not in found]:
        raise BadInput(
            label,
            f"transformers computes with {lost[0]}, which is no tensor of the checkpoint",
            "take a merge.method that needs no text",
        )
    return found


def _token_ids(tokenizer: Any, texts: Sequence[str], config: Any) -> list[list[int]]:
    """Return the texts that have something to predict, as tokens."""
    context = getattr(config.get_text_config(), "max_position_embeddings", None) or MOST_TOKENS
    most = min(context, MOST_TOKENS)
    ids = [tokenizer(text, truncation=True, max_length=most)["input_ids"] for text in texts]
    if not (long_enough := [own for own in ids if len(own) > 1]):
        raise BadInput("merge.calibration", "no text has two tokens", "take longer texts")
    return long_enough


def _compute(
    model: Any,
    texts: Sequence[Sequence[int]],
    tensors: Tensors,
    of_gradients: bool,
    label: str,
    tell: Callable[[int], None],
) -> None:
    """Let the model compute on every text, and the likelihood's gradients where they are wanted."""
    import torch

    for done, ids in enumerate(texts):
        tell(done)
        try:
            with torch.set_grad_enabled(of_gradients):
                likelihood = _log_likelihood(model, torch.tensor([ids], device=model.device))
            if not likelihood.isfinite():
                raise _not_finite(tensors, label)
            if of_gradients:
                likelihood.backward()
        except torch.OutOfMemoryError:
            problem = "does not fit in the GPU's memory with what it computes on one text"
            raise LorelineError(label, problem, "set merge.device to cpu") from None
        except (RuntimeError, IndexError, ValueError) as error:
            problem = f"cannot be measured on the calibration text ({brief(error)})"
            raise BadInput(label, problem, "take a merge.method that needs no text") from error


def _log_likelihood(model: Any, ids: Any) -> Any:
    """Return log p of a text's tokens after the first."""
    from torch.nn.functional import cross_entropy

    logits = model(input_ids=ids, use_cache=False).logits
    return -cross_entropy(logits[0, :-1].float(), ids[0, 1:], reduction="sum")


def _not_finite(tensors: Tensors, label: str) -> BadInput:
    """Return why a text's likelihood is no number: weights that are none, or too large."""
    for parameter, tensor in tensors.items():
        if not parameter.isfinite().all():
            return NotFinite(label, tensor)
    return BadInput(label, "gives the calibration text no finite likelihood", "leave that checkpoint out")


def _check_finite(sums: Sums, label: str) -> None:
    if not all(math.isfinite(own.sum(dtype=np.float64)) for own in sums.values()):
        raise BadInput(label, "computes numbers on the calibration text that overflow", "leave it out")


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep the bars of transformers off the terminal: progress is told."""
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
        yield
