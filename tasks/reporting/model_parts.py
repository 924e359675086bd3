"""A model by kinds of tensors and by layers, whatever its family calls them."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from tasks.base.measures import DeviationSummary
from tasks.merging.deviation_sums import Deviation, join, recall
from tasks.merging.layers import layer_of, on_input_side

T = TypeVar("T")
Parts = Mapping[str, Deviation]
"""What is known of each part of a model, by its name."""


def tensor_parts(tensors: Mapping[str, DeviationSummary]) -> Parts:
    """Recall the tensors of a merge.json or inspect.json."""
    return {name: recall(summary) for name, summary in tensors.items()}


def by_kind(tensors: Parts) -> Parts:
    """Join the tensors whose names differ in numbers only."""
    return {kind: join(found) for kind, found in grouped(tensors, kind_of).items()}


def by_layer(tensors: Parts) -> Parts:
    """Join the tensors of each layer: embeddings first, then every stack in order, then the rest."""
    ordered = {name: tensors[name] for name in along_the_model(tensors)}
    return {layer: join(found) for layer, found in grouped(ordered, layer_name).items()}


def grouped(tensors: Mapping[str, T], part_of: Callable[[str], str]) -> dict[str, list[T]]:
    """Gather what is known of tensors by the part that their names belong to."""
    groups: dict[str, list[T]] = defaultdict(list)
    for name, found in tensors.items():
        groups[part_of(name)].append(found)
    return dict(groups)


def kind_of(name: str) -> str:
    """Return a tensor's name without its numbers."""
    return re.sub(r"(?<![^.])\d+(?![^.])", "*", name)


def layer_name(name: str) -> str:
    """Return the stack and number of a tensor's layer; embeddings or rest outside the layers."""
    layer = layer_of(name)
    if layer is None:
        return "embeddings" if on_input_side(name) else "rest"
    return f"{layer[0]}{layer[1]}"


def role_of(name: str) -> str:
    """Return what a tensor is called in every layer: its kind without the stack."""
    inside = name[len(layer_name(name)) + 1 :] if layer_of(name) else ""
    return kind_of(inside or name).removesuffix(".weight")


def along_the_model(names: Iterable[str]) -> list[str]:
    """Sort tensors from the input to the output."""
    return sorted(names, key=_place)


def _place(name: str) -> tuple[int, str, int]:
    layer = layer_of(name)
    if layer is None:
        return (0 if on_input_side(name) else 2), "", 0
    return 1, *layer
