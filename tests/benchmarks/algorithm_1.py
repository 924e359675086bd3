"""Algorithm 1 of LoRE-Merging (Liu et al. 2025) as one would write it in an hour: what the solver replaces."""

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

PASSES = 10


class Pass(NamedTuple):
    """Where a pass leads."""

    anchor: Tensor
    """θ_0"""
    deltas: Tensor
    """N × m × n"""


def algorithm_1(thetas: Tensor, mu: float) -> Iterator[Pass]:
    """Yield what every pass finds, without end, from the mean of N × m × n matrices."""
    deltas = torch.zeros_like(thetas)
    while True:
        anchor = (thetas - deltas).mean(0)
        deltas = torch.stack([by_svd(theta - anchor, mu) for theta in thetas])
        yield Pass(anchor, deltas)


def ten_passes(thetas: Tensor, mu: float) -> Tensor:
    """Return S = Σδ_i after ten passes of full decompositions."""
    return next(islice(algorithm_1(thetas, mu), PASSES - 1, None)).deltas.sum(0)


def by_svd(A: Tensor, mu: float) -> Tensor:
    """Take μ off the singular values."""
    U, sigma, Vt = torch.linalg.svd(A, full_matrices=False)
    shrunk: Tensor = (U * (sigma - mu).clamp(min=0)) @ Vt
    return shrunk
