"""Algorithm 1 of LoRE-Merging (Liu et al. 2025) as one would write it in an hour: what the solver replaces."""

import math
from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

Shrink = Callable[[Tensor, float], Tensor]
"""Matrix, μ → what is left of it once μ is taken off its singular values."""
PASSES = 10


class Pass(NamedTuple):
    """Where a pass leads."""

    anchor: Tensor
    """θ_0"""
    deltas: Tensor
    """N × m × n"""

    def gap(self, thetas: Tensor, mu: float) -> float:
        """Return the relative duality gap, with θ_0 refreshed (docs/mathematics.md, fact 5)."""
        clipped = thetas - self.anchor - self.deltas
        prices = _dot(clipped, self.deltas)  # of SVT(A; μ) and A − SVT(A; μ) it is μ‖·‖_*
        Y = thetas - self.deltas
        Y = Y - Y.mean(0)
        s = min(1.0, mu / max(_norm2(y) for y in Y))
        squares = _dot(Y, Y)
        primal = squares / 2 + prices
        return (primal - s * _dot(Y, thetas) + s**2 * squares / 2) / primal


def algorithm_1(thetas: Tensor, mu: float, shrink: Shrink) -> Iterator[Pass]:
    """Yield what every pass finds, without end, from the mean of N × m × n matrices."""
    deltas = torch.zeros_like(thetas)
    while True:
        anchor = (thetas - deltas).mean(0)
        deltas = torch.stack([shrink(theta - anchor, mu) for theta in thetas])
        yield Pass(anchor, deltas)


def ten_passes(thetas: Tensor, mu: float) -> Tensor:
    """Return S = Σδ_i after ten passes of full decompositions."""
    return next(islice(algorithm_1(thetas, mu, by_svd), PASSES - 1, None)).deltas.sum(0)


def passes_needed(thetas: Tensor, mu: float, tolerance: float) -> int:
    """Count passes until the gap is within the tolerance; by Gram matrices, because it takes many."""
    passes = enumerate(algorithm_1(thetas, mu, by_gram), 1)
    return next(i for i, found in passes if found.gap(thetas, mu) <= tolerance)


def by_svd(A: Tensor, mu: float) -> Tensor:
    """Take μ off the singular values."""
    U, sigma, Vt = torch.linalg.svd(A, full_matrices=False)
    shrunk: Tensor = (U * (sigma - mu).clamp(min=0)) @ Vt
    return shrunk


def by_gram(A: Tensor, mu: float) -> Tensor:
    """Take μ off the singular values."""
    squares, V = torch.linalg.eigh(A.T @ A)
    kept = (1 - mu / squares.clamp(min=1e-30).sqrt()).clamp(min=0)
    shrunk: Tensor = A @ (V * kept) @ V.T
    return shrunk


def _dot(A: Tensor, B: Tensor) -> float:
    return float(torch.linalg.vecdot(A, B).double().sum())


def _norm2(A: Tensor) -> float:
    return math.sqrt(float(torch.linalg.eigvalsh(A.T @ A)[-1]))
