"""How much each element of a checkpoint matters to the likelihood of text: its diagonal Fisher information.

F = Σ over the texts of (∂ log p(text) / ∂θ)², of the texts themselves, not of text that the model draws (the
empirical Fisher information). It is written in units of its root mean square over the model, as only its
proportions count: a checkpoint must not weigh more because it fits the text worse.
"""

import math
from typing import Any

import numpy as np

from tasks.engine.shards import Spec, Stored
from tasks.engine.statistic import Statistic, Sums, Tensors

SUMMED_AT_ONCE = 2**22
"""Elements."""


def _spec(model: Any, tensors: Tensors) -> Spec:
    return {name: Stored("F32", tuple(parameter.shape)) for parameter, name in tensors.items()}


def _watch(model: Any, tensors: Tensors, sums: Sums) -> list[Any]:
    """Take every gradient as soon as it is there, so that memory holds one tensor's."""

    def add(parameter: Any) -> None:
        sums[tensors[parameter]] += parameter.grad.square_().reshape(-1).cpu().numpy()
        parameter.grad = None

    return [parameter.register_post_accumulate_grad_hook(add) for parameter in tensors]


def _in_root_mean_squares(sums: Sums) -> None:
    """Divide the sums by their root mean square over the model; leave them where all are zero."""
    squares = sum(_squares(own) for own in sums.values())
    unit = math.sqrt(squares / sum(own.size for own in sums.values()))
    if unit:
        for own in sums.values():
            own /= unit


def _squares(values: "np.memmap[Any, np.dtype[np.float32]]") -> float:
    parts = (values[i : i + SUMMED_AT_ONCE] for i in range(0, values.size, SUMMED_AT_ONCE))
    return sum(float(np.square(part, dtype=np.float64).sum()) for part in parts)


INFORMATION = Statistic(_spec, _watch, of_gradients=True, finish=_in_root_mean_squares)
