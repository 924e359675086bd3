"""The duality gap of given task vectors, for both penalties (docs/mathematics.md, fact 5)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tasks.merging.lore.penalty import Penalty


@dataclass(frozen=True)
class DualityGap:
    """The terms of the duality gap, all but the norms ‖Y_i‖_2 of the dual point.

    Y_i = B_i − δ_i + S/N sums to zero, so s·Y is dual feasible once every ‖sY_i‖_2 is small enough. With the
    primal taken at z = −S/N, whose residuals are the Y_i, all cross terms cancel.
    """

    penalty: Penalty
    nuclear: Sequence[float]
    """‖δ_i‖_*"""
    thresholds: Sequence[float]
    """What was subtracted from the singular values of each matrix; at the optimum no ‖Y_i‖_2 exceeds it."""
    products: float
    """Σ⟨Y_i, δ_i⟩"""
    squares: float
    """Σ‖Y_i‖²"""
    rounding: float
    """How far both may be off: they are differences of numbers as large as Σ‖B_i‖²."""

    @classmethod
    def of(
        cls,
        penalty: Penalty,
        sigmas: Sequence[Tensor],
        thresholds: Sequence[float],
        aligned: float,
        pulled: float,
        energy: float,
    ) -> "DualityGap":
        """Compute the terms for δ_i with singular values `sigmas`.

        `aligned` is Σ⟨B_i, δ_i⟩, `pulled` ‖S‖²/N (0 where z is fixed), `energy` Σ‖B_i‖².
        """
        own = sum(float(sigma.double().square().sum()) for sigma in sigmas)
        nuclear = [float(sigma.double().sum()) for sigma in sigmas]
        # Both expand with Y_i = B_i − δ_i + S/N and ΣB_i = 0, so that no Y_i is ever computed.
        squares = energy - 2 * aligned + own - pulled
        rounding = torch.finfo(sigmas[0].dtype).eps * energy
        return cls(penalty, nuclear, thresholds, aligned - own + pulled, squares, rounding)

    @property
    def primal(self) -> float:
        """The objective, ½Σ‖Y_i‖² + the penalties."""
        return self.squares / 2 + sum(map(self.penalty.value, self.nuclear))

    def gap(self, excess: float) -> float:
        """Return the gap relative to the objective, if every ‖Y_i‖_2 ≤ threshold + excess.

        Nuclear: ½(1−s)²Σ‖Y‖² + Σ(μ‖δ‖_* − s⟨Y, δ⟩), s = μ/(μ + excess). Squared: s = 1, and the conjugate
        ‖Y‖_2²/2μ takes the place of the constraint.
        """
        prices, mu = sum(map(self.penalty.value, self.nuclear)), self.penalty.mu
        if self.penalty.kind == "nuclear":
            s = mu / (mu + excess)
            absolute = (1 - s) ** 2 / 2 * self.squares + prices - s * self.products
        else:
            norms = sum((t + excess) ** 2 for t in self.thresholds)
            absolute = prices + norms / (2 * mu) - self.products
        # Rounding is added in full, because what is reported has to be an upper bound.
        return (max(absolute, 0.0) + self.rounding) / self.primal if self.primal > 0 else 0.0

    def allowance(self, tolerance: float) -> float:
        """Return the largest excess at which the gap is within the tolerance; 0 where there is none."""
        # The gap grows with the excess, so bisect; returning the lower end keeps it within the tolerance.
        low, high = 0.0, max(self.thresholds)
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if self.gap(middle) <= tolerance else (low, middle)
        return low
