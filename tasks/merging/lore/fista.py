"""FISTA on z, which always lies in the span of the last three S = Σδ_i: three coefficients stand for z.

Steps, momentum and gap need only inner products of the S; no m × n array is made. Beck and Teboulle 2009.
"""

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
    """The iterates z_k: each pass finds S at z_k, and z_{k+1} is −S/N plus momentum."""

    def __init__(self, N: int, energy: float) -> None:
        self._N, self._energy = N, energy
        self._momentum = Momentum()
        self._S: list[Factors] = []
        """S of the last three passes, newest first."""
        self._gram: Vector = np.zeros((0, 0))
        """Their inner products, float64."""
        self._z: Vector = np.zeros(0)
        """Coefficients of z in them."""

    def take(self, deltas: Sequence[Factors], thresholds: Sequence[float], penalty: Penalty) -> DualityGap:
        """Record the task vectors found at z; return their duality gap's terms."""
        newest = add_up(deltas)
        self._S = [newest, *self._S[:2]]
        products = [inner(newest, S) for S in self._S]
        older = self._gram[:2, :2]  # only the newest row is computed; products of factors cost r² · (m + n)
        self._gram = np.block([[np.array(products[:1]), np.array(products[1:])],
                               [np.array(products[1:])[:, None], older]])  # fmt: skip
        self._z = np.array([0.0, *self._z[:2]])  # z comes from older S; the newest entered in front of them
        z_S, S_S = float(self._z @ self._gram[0]), products[0]
        sigmas = [delta.sigma for delta in deltas]
        # ⟨B_i, δ_i⟩ = ⟨z, δ_i⟩ + ⟨B_i − z, δ_i⟩; for Ritz vectors u_jᵀ(B_i − z)v_j is the singular value of
        # δ_i plus the threshold that was taken off.
        aligned = z_S + sum(
            float(((sigma + t).double() * sigma.double()).sum())
            for sigma, t in zip(sigmas, thresholds, strict=True)
        )
        return DualityGap.of(penalty, sigmas, thresholds, aligned, S_S / self._N, self._energy)

    def remaining(self, negligible: float) -> float:
        """Estimate ‖step‖_2 for step = −z − S/N, by which the dual point exceeds its bound.

        Where a lower bound from ‖step‖_F is over `negligible` already, that bound is returned: it is cheap.
        """
        step = -self._z - self._first() / self._N
        rank = sum(S.rank for S in self._S)
        # ‖·‖_2 ≥ ‖·‖_F / √rank
        least = math.sqrt(max(float(step @ self._gram @ step), 0.0) / max(rank, 1))
        return least if least > negligible else norm2(self._combined(step))

    def next_z(self) -> Factors:
        """Return the next z, −S/N plus momentum, as factors."""
        beta = 0.0
        if len(self._S) > 1:
            step = -self._z - self._first() / self._N
            # from the last −S/N to this one, up to the factor 1/N; uphill where the step points against it
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
    """Estimate ‖·‖_2 from below, by power iterations on the factors; columns need not be orthonormal."""
    # An estimate suffices: it decides when a proof is tried, and the proof does not use it.
    left, right = matrix.U * matrix.sigma, matrix.V
    x = gaussian(right.shape[0], 4, like=right)
    for _ in range(2):
        x = torch.linalg.qr(right @ (left.T @ (left @ (right.T @ x)))).Q
    return float(torch.linalg.matrix_norm(left @ (right.T @ x), 2))
