"""Measuring every checkpoint of a merge on text, before any tensor is merged.

Memory: the weights in float32, the activations of one text, and where gradients are needed that of one
tensor. The sums lie on the disk.
"""

import gc
import math
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tasks.base.errors import BadInput
from tasks.base.loading import load_tokenizer
from tasks.base.threads import torch_threads_for
from tasks.checkpoints.weights import NotFinite, WeightReader, open_weights
from tasks.engine.devices import choose_devices
from tasks.engine.importance import INFORMATION
from tasks.engine.input_grams import GRAMS
from tasks.engine.on_text import computing, load_with_tensors, telling, tokens_of
from tasks.engine.plan import Plan
from tasks.engine.progress import OnProgress
from tasks.engine.shards import open_shards
from tasks.engine.statistic import Statistic, Sums, Tensors

STATISTICS: Mapping[str | None, Statistic] = {"gradients": INFORMATION, "inputs": GRAMS}


def with_measured(plan: Plan, scratch: Path, on_progress: OnProgress) -> Plan:
    """Measure every checkpoint on the plan's texts where the method wants it; return the plan with that.

    It is written into `scratch`; what a killed process finished there is taken as it is.
    Raises BadInput for models that transformers cannot load or measure, and NotFinite.
    """
    statistic = STATISTICS.get(plan.method.measures)
    if statistic is None:
        return plan
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
    tell = telling(plan, on_progress)
    return lambda done: tell(f"{label}: {done} of {len(plan.texts)} texts")


def _measure(
    plan: Plan,
    source: WeightReader,
    statistic: Statistic,
    tokenizer: Any,
    directory: Path,
    tell: Callable[[int], None],
) -> None:
    """Write a checkpoint's statistic into a directory, as one safetensors file that is synced."""
    model, tensors = load_with_tensors(source, plan.shapes)
    texts = [own.ids for own in tokens_of(tokenizer, plan.texts, model.config)]
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
        with computing(label):
            with torch.set_grad_enabled(of_gradients):
                likelihood = _log_likelihood(model, torch.tensor([ids], device=model.device))
            if not likelihood.isfinite():
                raise _not_finite(tensors, label)
            if of_gradients:
                likelihood.backward()


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
