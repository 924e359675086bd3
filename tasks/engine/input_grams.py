"""What the linear layers of a checkpoint are fed by text: Σ x xᵀ over the tokens, a matrix for each layer.

A layer whose weight is an embedding's, as a tied head's, is none of them: embeddings are averaged.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

from tasks.engine.shards import Spec, Stored
from tasks.engine.statistic import Statistic, Sums, Tensors
from tasks.merging.block import OF_ROWS


def _spec(model: Any, tensors: Tensors) -> Spec:
    return {name: Stored("F32", (inputs, inputs)) for _, name, inputs in _linear_layers(model, tensors)}


def _watch(model: Any, tensors: Tensors, sums: Sums) -> list[Any]:
    def add(name: str, inputs: int, layer: Any, given: tuple[Any, ...]) -> None:
        x = given[0].reshape(-1, inputs)
        sums[name] += (x.T @ x).reshape(-1).cpu().numpy()

    layers = _linear_layers(model, tensors)
    return [layer.register_forward_pre_hook(partial(add, name, inputs)) for layer, name, inputs in layers]


def _linear_layers(model: Any, tensors: Tensors) -> Iterator[tuple[Any, str, int]]:
    """Yield layer, name of the sum and number of inputs."""
    import torch
    from transformers.pytorch_utils import Conv1D

    embeddings = {layer.weight for layer in model.modules() if isinstance(layer, torch.nn.Embedding)}
    for layer in model.modules():
        if isinstance(layer, torch.nn.Linear | Conv1D) and layer.weight not in embeddings:
            name = tensors[layer.weight]
            if isinstance(layer, Conv1D):  # GPT-2's, whose weights are inputs × outputs
                yield layer, name + OF_ROWS, layer.weight.shape[0]
            else:
                yield layer, name, layer.weight.shape[1]


GRAMS = Statistic(_spec, _watch, of_gradients=False)
