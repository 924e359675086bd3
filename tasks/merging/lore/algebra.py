"""Low-rank matrices as factors, which are never multiplied out, and the products that every solver needs."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

Tensor = torch.Tensor
SEED = 0


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


def add_up(parts: Sequence[Factors]) -> Factors:
    """Return the sum as factors side by side, whose columns are no longer orthonormal."""
    return Factors(*(torch.cat(own, dim=-1) for own in zip(*parts, strict=True)))


def inner(left: Factors, right: Factors) -> float:
    """Return ⟨left, right⟩, columns orthonormal or not."""
    overlap = (left.U.T @ right.U) * (left.V.T @ right.V)
    return float(left.sigma.double() @ overlap.double() @ right.sigma.double())


def gaussian(*shape: int, like: Tensor) -> Tensor:
    """Return random numbers, always the same, from the CPU's generator whatever the device."""
    generator = torch.Generator().manual_seed(SEED)
    return torch.randn(*shape, generator=generator, dtype=like.dtype).to(like.device)


def energy(B: Tensor) -> float:
    """Return Σ‖B_i‖²; rows in their own precision, which loses nothing that counts, their sum in float64."""
    return float(torch.linalg.vector_norm(B, dim=-1).double().square().sum())


def row_dot(left: Tensor, right: Tensor) -> float:
    """Return ⟨left, right⟩; rows in their own precision, their sum in float64."""
    return float(torch.linalg.vecdot(left, right).double().sum())


def gram_matrix(Y: Tensor) -> Tensor:
    """Return YᵀY; numpy's product knows that it is symmetric, and takes half the time."""
    if Y.device.type != "cpu":
        return Y.T @ Y
    array = Y.numpy()
    return torch.from_numpy(array.T @ array)
