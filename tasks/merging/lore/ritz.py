"""Ritz triplets: approximate singular values and vectors from subspaces, and thresholding them."""

from typing import NamedTuple

import torch

from tasks.merging.lore.algebra import Factors, Tensor
from tasks.merging.lore.penalty import Penalty, values


class Triplets(NamedTuple):
    """Ritz triplets A ≈ U diag(σ) Vᵀ of N matrices, descending."""

    U: Tensor
    """N × m × k"""
    sigma: Tensor
    """N × k"""
    V: Tensor
    """N × n × k"""


class Pass(NamedTuple):
    """The task vectors at one z."""

    deltas: list[Factors]
    triplets: Triplets
    thresholds: list[float]

    @property
    def lowest(self) -> float:
        """The smallest threshold."""
        return min(self.thresholds)


def triplets(U: Tensor, Q: Tensor, R: Tensor) -> Triplets:
    """Return the Ritz triplets of A, given an orthonormal U and AᵀU = QR."""
    # On the CPU, wherever A is: for such small matrices a GPU's decomposition is slower.
    # AᵀU = QR = (QX)ΣZᵀ gives A's right vectors QX and its left ones UZ.
    X, sigma, Zt = (part.to(R.device) for part in torch.linalg.svd(R.cpu()))
    return Triplets(U @ Zt.mT, sigma, Q @ X)


def times(A: Tensor, V: Tensor, z: Factors | None) -> Tensor:
    """Return (A − z)V."""
    return A @ V if z is None else A @ V - (z.U * z.sigma) @ (z.V.T @ V)


def ritz(B: Tensor, V: Tensor, z: Factors | None = None) -> Triplets:
    """Return Ritz triplets of B_i − z from subspaces V (N × n × k), by one product from either side."""
    U = torch.linalg.qr(times(B, V, z)).Q
    return triplets(U, *torch.linalg.qr(times(B.mT, U, z.transposed if z is not None else None)))


def threshold(found: Triplets, penalty: Penalty) -> Pass:
    """Soft-threshold the singular values: the proximal map of the penalty within the subspaces."""
    deltas, thresholds = [], []
    for U, sigma, V in zip(*found, strict=True):
        t = penalty.threshold(values(sigma))
        r = int((sigma > t).sum())
        deltas.append(Factors(U[:, :r], sigma[:r] - t, V[:, :r]))
        thresholds.append(t)
    return Pass(deltas, found, thresholds)
