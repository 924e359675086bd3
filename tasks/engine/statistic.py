"""What may be measured of a checkpoint while it computes on text: sums, and what adds to them."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from tasks.engine.shards import Spec

Sums: TypeAlias = Mapping[str, "np.memmap[Any, np.dtype[np.float32]]"]
"""Flat, by name, in the file that they are written to."""
Tensors: TypeAlias = Mapping[Any, str]
"""A torch model's parameter → the tensor of the merge that it is."""


class Statistic(NamedTuple):
    """Sums over texts."""

    spec: Callable[[Any, Tensors], Spec]
    """Model, tensors → what is written."""
    watch: Callable[[Any, Tensors, Sums], list[Any]]
    """Hooks into the model what adds to the sums while it computes; returns torch's handles of the hooks."""
    of_gradients: bool
    """Whether the likelihood's gradients are needed."""
    finish: Callable[[Sums], None] = lambda sums: None
    """Brings the sums to their final unit."""
