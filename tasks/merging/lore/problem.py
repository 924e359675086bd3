"""What a solver takes and what it gives."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from tasks.base.errors import LorelineError
from tasks.merging.lore.penalty import Penalty

Tensor = torch.Tensor


class NotConverged(LorelineError):
    """No solver reached the tolerance."""


class Unproven(Exception):
    """Subspaces, or this precision, are too coarse for a proof; something more expensive is not."""


class Factors(NamedTuple):
    """A low-rank matrix U diag(σ) Vᵀ, its singular values descending."""

    U: Tensor
    """m × r, orthonormal columns."""
    sigma: Tensor
    """r"""
    V: Tensor
    """n × r, orthonormal columns."""

    @property
    def rank(self) -> int:
        """The number of singular values."""
        return self.sigma.numel()

    @property
    def transposed(self) -> "Factors":
        """The same matrix, rows for columns."""
        return Factors(self.V, self.sigma, self.U)

    def truncated(self, rank: int) -> "Factors":
        """Return the nearest matrix of this rank."""
        return Factors(self.U[:, :rank], self.sigma[:rank], self.V[:, :rank])

    def to(self, dtype: torch.dtype) -> "Factors":
        """Return the same matrix in another precision."""
        return Factors(*(part.to(dtype) for part in self))

    def matrix(self) -> Tensor:
        """Return the m × n matrix itself."""
        return (self.U * self.sigma) @ self.V.T


class Solution(NamedTuple):
    """The task vectors of one matrix, and what vouches for them."""

    deltas: list[Factors]
    """δ_i"""
    spectra: list[list[float]]
    """Singular values of θ_i − θ_0 that the solver saw, descending: those above the threshold, some below."""
    penalty: Penalty
    """With μ as a singular value."""
    thresholds: list[float]
    """What was taken off the singular values of each."""
    edge: float
    """Noise edge of the deviations."""
    passes: int
    gap: float
    """Upper bound on the relative distance of the objective from its minimum."""
    solver: str


def add_up(parts: Sequence[Factors]) -> Factors:
    """Return the sum as factors side by side, whose columns are no longer orthonormal."""
    return Factors(*(torch.cat(own, dim=-1) for own in zip(*parts, strict=True)))


def inner(left: Factors, right: Factors) -> float:
    """Return ⟨left, right⟩, columns orthonormal or not."""
    overlap = (left.U.T @ right.U) * (left.V.T @ right.V)
    return float(left.sigma.double() @ overlap.double() @ right.sigma.double())
