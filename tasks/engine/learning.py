"""Learning on text how much of each task vector a merge takes, before any tensor is merged (AdaMerging).

θ(λ) = θ_0 + Σ λ_i δ_i, with a λ_i of its own for every tensor. What is minimised is the mean entropy of the
predictions that θ(λ) makes along the texts, after their prompts; its slope along λ_i is ⟨∂L/∂θ, δ_i⟩ over
the tensor.

Memory: one model and its gradients in float32, and the activations of one long text, however many checkpoints
there are. Task vectors are read from the files, piece by piece, twice a step.
"""

import gc
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tasks.base.errors import BadInput
from tasks.base.loading import load_tokenizer
from tasks.base.threads import torch_threads_for
from tasks.engine.devices import choose_devices
from tasks.engine.on_text import MOST_TOKENS, Tokens, computing, load_with_tensors, telling, tokens_of
from tasks.engine.plan import Plan
from tasks.engine.progress import OnProgress
from tasks.engine.statistic import Tensors
from tasks.merging.adamerging import Descent, Lambdas, descended, evenly

LEARNED = "coefficients.npz"
"""How far learning is, for a process that goes on after a killed one."""
TEXTS_A_STEP = 16
"""As in the paper."""
READ_AT_ONCE = 2**22
"""Elements of a tensor that are read of every checkpoint at a time."""


def with_learned(plan: Plan, scratch: Path, on_progress: OnProgress) -> Plan:
    """Learn the coefficients on the plan's texts where the method wants it; return the plan with them.

    How far that is lies in `scratch`; a later process goes on from there, to the same coefficients.
    Raises BadInput for models that transformers cannot load or compute with, and NotFinite.
    """
    if plan.method.measures != "coefficients":
        return plan
    scratch.mkdir(exist_ok=True)
    at = _resumed(scratch) or evenly(len(plan.shapes), len(plan.inputs))
    if at.step < plan.params.adamerging.steps:
        at = _learn(plan, at, scratch, on_progress)
        gc.collect()  # transformers' models refer to themselves
    found = dict(zip(plan.shapes, map(tuple, at.values.tolist()), strict=True))
    return replace(plan, variants=[replace(own, coefficients=found) for own in plan.variants])


def _learn(plan: Plan, at: Descent, scratch: Path, on_progress: OnProgress) -> Descent:
    newest, params = plan.inputs[-1], plan.params.adamerging
    tell = telling(plan, on_progress)
    tell("learning coefficients: loading the model")
    tokenizer = load_tokenizer(newest.directory)
    model, tensors = load_with_tensors(newest, plan.shapes)
    model.to(choose_devices(plan.params.device, decomposes=True)[0])
    texts = tokens_of(tokenizer, plan.texts, model.config)
    rounds = math.ceil(len(texts) / TEXTS_A_STEP)
    with torch_threads_for(model.num_parameters()):
        while at.step < params.steps:
            _place(plan, tensors, at.values)
            entropy = _backward(model, texts[at.step % rounds :: rounds], newest.label)
            tell(f"learning coefficients: step {at.step + 1} of {params.steps}, entropy {entropy:.4f}")
            at = descended(at, _slopes(plan, tensors), params.rate)
            _save(at, scratch)
    return at


def _place(plan: Plan, tensors: Tensors, coefficients: Lambdas) -> None:
    """Set a model's parameters to θ(λ)."""
    import torch

    of = dict(zip(plan.shapes, coefficients, strict=True))
    for parameter, name in tensors.items():
        weights = torch.tensor(of[name], dtype=parameter.dtype, device=parameter.device)
        flat = parameter.data.view(-1)
        for first, base, deltas in _pieces(plan, name, parameter.device):
            flat[first : first + len(base)] = base + weights @ deltas


def _slopes(plan: Plan, tensors: Tensors) -> Lambdas:
    """Return ⟨∂L/∂θ, δ_i⟩, and forget the gradients; 0 for what the model does not compute with."""
    found = dict.fromkeys(plan.shapes, np.zeros(len(plan.inputs)))
    for parameter, name in tensors.items():
        if parameter.grad is not None:
            flat = parameter.grad.reshape(-1)
            pieces = _pieces(plan, name, parameter.device)
            parts = [(deltas @ flat[first : first + len(base)]).double() for first, base, deltas in pieces]
            found[name] = sum(parts).cpu().numpy()
            parameter.grad = None
    return np.array(list(found.values()))


def _pieces(plan: Plan, name: str, device: Any) -> Iterator[tuple[int, Any, Any]]:
    """Yield where a piece of a tensor begins, θ_0 and the δ_i of it, one row for each."""
    import torch

    assert plan.base is not None  # the method's row says that it is required
    size = math.prod(plan.shapes[name])
    for first in range(0, size, READ_AT_ONCE):
        count = min(READ_AT_ONCE, size - first)
        base = plan.base.read(name, first, count, np.float32)
        deltas = np.empty((len(plan.inputs), count), np.float32)
        for delta, source in zip(deltas, plan.inputs, strict=True):
            np.subtract(source.read(name, first, count, np.float32), base, out=delta)
        yield first, torch.from_numpy(base).to(device), torch.from_numpy(deltas).to(device)


def _backward(model: Any, texts: Sequence[Tokens], label: str) -> float:
    """Return the mean entropy in nats of the predictions along some texts; its gradients are the model's."""
    predictions, total = sum(len(own.ids) - own.first for own in texts), 0.0
    for together in _batches(texts):
        with computing(label):
            entropy = _entropy(model, together) / predictions
            entropy.backward()
        total += entropy.item()
    if not math.isfinite(total):
        raise BadInput(label, "merged with the others predicts no finite numbers", "leave some out")
    return total


def _batches(texts: Sequence[Tokens]) -> list[list[Tokens]]:
    """Put short texts together, up to as many tokens as a long one has: one pass serves all of them."""
    found: list[list[Tokens]] = [[]]
    for own in texts:
        wider = [*found[-1], own]
        if found[-1] and len(wider) * max(len(each.ids) for each in wider) > MOST_TOKENS:
            found.append([own])
        else:
            found[-1].append(own)
    return found


def _entropy(model: Any, texts: Sequence[Tokens]) -> Any:
    """Return the entropies of what is predicted for the texts' tokens after their prompts, added up."""
    import torch

    width = max(len(own.ids) for own in texts)
    # what is behind a text changes nothing before it: no prediction looks ahead
    padded = [[*own.ids, *[0] * (width - len(own.ids))] for own in texts]
    logits = model(input_ids=torch.tensor(padded, device=model.device), use_cache=False).logits
    predicted = [row[own.first - 1 : len(own.ids) - 1] for row, own in zip(logits, texts, strict=True)]
    log_p = torch.cat(predicted).float().log_softmax(-1)
    return -(log_p.exp() * log_p).sum()


def _resumed(scratch: Path) -> Descent | None:
    """Return where a killed process was."""
    if not (scratch / LEARNED).exists():
        return None
    with np.load(scratch / LEARNED) as found:
        return Descent(int(found["step"]), found["values"], found["mean"], found["square"])


def _save(at: Descent, scratch: Path) -> None:
    part = scratch / "part"
    with part.open("wb") as file:
        np.savez(file, **at._asdict())
        file.flush()
        os.fsync(file.fileno())
    part.rename(scratch / LEARNED)
