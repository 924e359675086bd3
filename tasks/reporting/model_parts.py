"""A model by kinds of tensors and by layers, whatever its family calls them."""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping

from tasks.merging.deviation import Deviation, join, recall
from tasks.merging.layers import layer_of, on_input_side
from tasks.merging.program import Facts

Parts = Mapping[str, Deviation]
"""What is known of each part of a model, by its name."""


def tensor_parts(tensors: Mapping[str, Facts]) -> Parts:
    """Read the tensors of a merge.json or inspect.json; integers, which have no task vector, are left out."""
    return {name: recall(facts) for name, facts in tensors.items() if "norms" in facts}


def by_kind(tensors: Parts) -> Parts:
    """Join the tensors whose names differ in numbers only."""
    return _joined(tensors, lambda name: re.sub(r"(?<![^.])\d+(?![^.])", "*", name))


def by_layer(tensors: Parts) -> Parts:
    """Join the tensors of each layer: embeddings first, then every stack in order, then the rest."""
    return _joined(dict(sorted(tensors.items(), key=lambda item: _place(item[0]))), _layer)


def _place(name: str) -> tuple[int, str, int]:
    layer = layer_of(name)
    if layer is None:
        return (0 if on_input_side(name) else 2), "", 0
    return 1, *layer


def _layer(name: str) -> str:
    layer = layer_of(name)
    if layer is None:
        return "embeddings" if on_input_side(name) else "rest"
    return f"{layer[0]}{layer[1]}"


def _joined(tensors: Parts, part_of: Callable[[str], str]) -> Parts:
    groups: dict[str, list[Deviation]] = defaultdict(list)
    for name, found in tensors.items():
        groups[part_of(name)].append(found)
    return {part: join(found) for part, found in groups.items()}
