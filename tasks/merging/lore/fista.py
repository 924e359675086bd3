"""FISTA on z, kept in the span of the last three S: all that has to be known of z are inner products."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from tasks.merging.lore.algebra import Factors, add_up, gaussian, inner
from tasks.merging.lore.duality_gap import DualityGap
from tasks.merging.lore.momentum import Momentum
from tasks.merging.lore.penalty import Penalty

Vector = np.ndarray[Any, np.dtype[np.float64]]


class Fista:
    """The path of z: every pass finds S at z, and the next z lies at −S/N or beyond it."""

    def __init__(self, N: int, energy: float) -> None:
        self._N, self._energy = N, energy
        self._momentum = Momentum()
        self._S: list[Factors] = []
        """Of the last passes, newest first."""
        self._gram: Vector = np.zeros((0, 0))
        """Their inner products."""
        self._z: Vector = np.zeros(0)
        """z in units of them."""

    def take(self, deltas: Sequence[Factors], thresholds: Sequence[float], penalty: Penalty) -> DualityGap:
        """Account for the task vectors found at z (see DualityGap for what the numbers are)."""
        newest = add_up(deltas)
        self._S = [newest, *self._S[:2]]
        products = [inner(newest, S) for S in self._S]
        older = self._gram[:2, :2]
        self._gram = np.block([[np.array(products[:1]), np.array(products[1:])],
                               [np.array(products[1:])[:, None], older]])  # fmt: skip
        self._z = np.array([0.0, *self._z[:2]])
        z_S, S_S = float(self._z @ self._gram[0]), products[0]
        sigmas = [delta.sigma for delta in deltas]
        # Ritz vectors: u_jᵀ(B − z)v_j = σ_j, which is what is left of it plus the threshold.
        aligned = z_S + sum(
            float(((sigma + t).double() * sigma.double()).sum())
            for sigma, t in zip(sigmas, thresholds, strict=True)
        )
        return DualityGap.of(penalty, sigmas, thresholds, aligned, S_S / self._N, self._energy)

    def remaining(self, negligible: float) -> float:
        """Estimate ‖step‖_2, which the dual point exceeds its bound by; step = mean Clip = −z − S/N.

        Coarsely, from ‖step‖_F, where that alone shows it to be over `negligible`.
        """
        step = -self._z - self._first() / self._N
        rank = sum(S.rank for S in self._S)
        least = math.sqrt(max(float(step @ self._gram @ step), 0.0) / max(rank, 1))
        return least if least > negligible else norm2(self._combined(step))

    def next_z(self) -> Factors:
        """Step to −S/N, and beyond it with momentum."""
        beta = 0.0
        if len(self._S) > 1:
            step = -self._z - self._first() / self._N
            move = np.eye(len(self._S))[1] - self._first()
            beta = self._momentum.after(uphill=bool(step @ self._gram @ move < 0))
        self._z = np.array([-(1 + beta), beta, 0.0])[: len(self._S)] / self._N
        return self._combined(self._z)

    def _first(self) -> Vector:
        first: Vector = np.eye(len(self._S))[0]
        return first

    def _combined(self, coefficients: Vector) -> Factors:
        pairs = zip(coefficients, self._S, strict=True)
        return add_up([S._replace(sigma=float(c) * S.sigma) for c, S in pairs if c])


def norm2(matrix: Factors) -> float:
    """Estimate ‖·‖_2 from below, by a few power passes over the factors; columns need not be orthonormal."""
    left, right = matrix.U * matrix.sigma, matrix.V
    x = gaussian(right.shape[0], 4, like=right)
    for _ in range(2):
        x = torch.linalg.qr(right @ (left.T @ (left @ (right.T @ x)))).Q
    return float(torch.linalg.matrix_norm(left @ (right.T @ x), 2))
