"""A checkpoint's model that computes on text: its parameters by their tensors' names, the texts as tokens."""

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

from tasks.base.errors import BadInput, LorelineError, brief
from tasks.base.loading import load_causal_model
from tasks.base.passage import Passage
from tasks.checkpoints.prefixes import names_as_in
from tasks.checkpoints.weights import WeightReader
from tasks.engine.plan import Plan
from tasks.engine.progress import TELL_EVERY_S, Headway, OnProgress

MOST_TOKENS = 2048
"""Of a text, or the model's context where that is less; the rest is left out."""


def load_with_tensors(
    source: WeightReader, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[Any, dict[Any, str]]:
    """Load a checkpoint's model in float32; return it with parameter → the tensor of the merge that it is.

    Raises BadInput for models that transformers cannot load, or whose tensors it joins as it loads them.
    """
    with _silent():
        model = load_causal_model(source.directory, "float32").eval()
    return model, _tensors_of(model, shapes, source.label)


@contextlib.contextmanager
def computing(label: str) -> Iterator[None]:
    """Turn what fails while a model computes on text into one sentence that names it."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError:
        problem = "does not fit in the GPU's memory with what it computes on one text"
        raise LorelineError(label, problem, "set merge.device to cpu") from None
    except (RuntimeError, IndexError, ValueError) as error:
        problem = f"cannot be measured on the calibration text ({brief(error)})"
        raise BadInput(label, problem, "take a merge.method that needs no text") from error


def telling(plan: Plan, on_progress: OnProgress) -> Callable[[str], None]:
    """Return what tells, now and then, what is computed before the merge."""
    told = -math.inf

    def tell(measuring: str) -> None:
        nonlocal told
        if time.monotonic() - told >= TELL_EVERY_S:
            told = time.monotonic()
            on_progress(Headway("", 0, plan.bytes_written, 0, len(plan.spec), {}, measuring=measuring))

    return tell


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


class Tokens(NamedTuple):
    """A text as a model sees it."""

    ids: list[int]
    first: int
    """The first that is predicted: those before it are the prompt's, or begin the text."""


def tokens_of(tokenizer: Any, texts: Sequence[Passage], config: Any) -> list[Tokens]:
    """Return the texts that have something to predict, as tokens."""
    context = getattr(config.get_text_config(), "max_position_embeddings", None) or MOST_TOKENS
    most = min(context, MOST_TOKENS)
    every = [_tokens(tokenizer, own, most) for own in texts]
    if not (long_enough := [own for own in every if len(own.ids) > own.first]):
        raise BadInput("merge.calibration", "no text has a token to predict", "take longer texts")
    return long_enough


def _tokens(tokenizer: Any, passage: Passage, most: int) -> Tokens:
    """Return a text's tokens; a token in which prompt and text meet is the text's."""
    cut: dict[str, Any] = {"truncation": True, "max_length": most}
    ids = tokenizer(passage.whole, **cut)["input_ids"]
    prompt = tokenizer(passage.prompt, **cut)["input_ids"] if passage.prompt else []
    shared = takewhile(lambda pair: pair[0] == pair[1], zip(ids, prompt, strict=False))
    return Tokens(ids, max(len(list(shared)), 1))


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep the bars of transformers off the terminal: progress is told."""
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
        yield
