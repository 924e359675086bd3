"""Relative depth of a tensor, from its name: 0 at the first layer, 1 at the last."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_NUMBERED = re.compile(r"^((?:[^.]*\.)*?)(\d+)(?:\.|$)")
"""The first purely numeric component: experts.3 inside layers.5 belongs to layer 5."""
_INPUT_SIDE = re.compile(r"(?:^|\.)(?:wte|wpe|shared|emb|emb_ln|(?!embed_out)\w*(?<!un)embed\w*)(?:\.|$)")
"""Names of token, position and type embeddings in transformers, and of the norms beside them."""


@dataclass(frozen=True)
class Layers:
    """The stacks of layers of one model; an encoder and a decoder each run from 0 to 1."""

    last: Mapping[str, int]
    """The largest layer number of each stack, by what stands before the number."""

    @classmethod
    def of(cls, names: Iterable[str]) -> "Layers":
        """Find the stacks in the names of all tensors."""
        last: dict[str, int] = {}
        for stack, number in filter(None, map(layer_of, names)):
            last[stack] = max(number, last.get(stack, 0))
        return cls(last)

    def position(self, tensor: str) -> float:
        """Return 0 (first layer) to 1 (last); embeddings lie at 0, what follows the layers at 1."""
        layer = layer_of(tensor)
        if layer is None:
            return 0.0 if on_input_side(tensor) else 1.0
        stack, number = layer
        return number / self.last[stack] if self.last[stack] else 1.0


def layer_of(tensor: str) -> tuple[str, int] | None:
    """Return what stands before the number of a tensor's layer, and the number; None outside the layers."""
    found = _NUMBERED.match(tensor)
    return (found[1], int(found[2])) if found else None


def on_input_side(tensor: str) -> bool:
    """Tell whether a tensor outside the layers comes before them."""
    return _INPUT_SIDE.search(tensor) is not None
