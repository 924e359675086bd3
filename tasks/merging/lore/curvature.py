"""The curvature of the fit: by how much Clip_μ changes with z, in the span of the leading singular vectors.

K, the derivative of the singular value thresholding at A = UΣVᵀ, takes a matrix X with the coefficients
X_jk = u_jᵀXv_k to, with d = max(σ − μ, 0),

    (d_jσ_j − d_kσ_k)/(σ_j² − σ_k²) · X_jk + (d_jσ_k − d_kσ_j)/(σ_j² − σ_k²) · X_kj

which is 1 between singular values above μ but for their rotation, and 0 between those below.
"""

from collections.abc import Callable, Sequence
from copy import copy
from typing import NamedTuple, TypeAlias

import torch

from tasks.merging.lore.algebra import Factors, Tensor, inner_each
from tasks.merging.lore.columns import orthonormal_basis

Cutoff: TypeAlias = float | Tensor
"""A level; of several problems … × 1 × 1."""


class Bases(NamedTuple):
    """Orthonormal bases that hold the leading singular vectors of all matrices."""

    U: Tensor
    """m × p"""
    V: Tensor
    """n × q"""

    def core(self, matrix: Tensor) -> Tensor:
        """Return a matrix m × n in these bases, p × q."""
        return self.U.T @ matrix @ self.V

    def lifted(self, core: Tensor) -> Tensor:
        """Return the matrix m × n that has this core."""
        return self.U @ core @ self.V.T


def coarse(found: Sequence[Factors], unit: float) -> list[Factors]:
    """Return triplets in float32, their singular values in a unit: a few digits are enough for curvature."""
    return [Factors(U.float(), (sigma / unit).float(), V.float()) for U, sigma, V in found]


def joint(found: Sequence[Factors], before: Sequence[Factors]) -> Bases:
    """Return the span of the leading singular vectors, and of those of the pass before."""
    parts = [*found, *before]
    return Bases(*(orthonormal_basis(torch.cat([part[side] for part in parts], 1))[0] for side in (0, 2)))


class Coordinates(NamedTuple):
    """Triplets of N matrices in common coordinates; of several such problems, all with one more dimension."""

    U: Tensor
    """… × N × r × p, a row for each; zeros where one matrix has fewer."""
    sigma: Tensor
    """… × N × r"""
    V: Tensor
    """… × N × r × q"""


def in_bases(found: Sequence[Factors], bases: Bases) -> Coordinates:
    """Return triplets in these bases."""
    N, rank = len(found), max(part.rank for part in found)
    U = bases.U.new_zeros(N, rank, bases.U.shape[1])
    V = bases.V.new_zeros(N, rank, bases.V.shape[1])
    sigma = bases.U.new_zeros(N, rank)
    for i, part in enumerate(found):
        r = part.rank
        U[i, :r], sigma[i, :r], V[i, :r] = part.U.T @ bases.U, part.sigma, part.V.T @ bases.V
    return Coordinates(U, sigma, V)


class Curvature:
    """ΣK_i on cores p × q, or those of several problems on one core of each."""

    def __init__(
        self, found: Coordinates, cuts: tuple[float, Cutoff], outside: Callable[[Tensor], Tensor]
    ) -> None:
        """Take the leading triplets; `outside` gives K's coefficient between σ and what does not lead."""
        # One product for all matrices instead of one each: cores are small, and calls would take the time.
        self._U, sigma, self._V = found
        alpha = outside(sigma)[..., None]
        straight, self._turned = _weights(sigma, *cuts)
        # between leading vectors by the weights, between a leading one and all others by α: those between
        # leading ones are taken off where rows and columns have α
        self._straight = straight - (alpha + alpha.mT)
        # ΣU_i α_i U_iᵀ from the left and ΣV_i α_i V_iᵀ from the right are the same in every product
        self._left, self._right = (
            (alpha * part).flatten(-3, -2).mT @ part.flatten(-3, -2) for part in (self._U, self._V)
        )

    def of(self, X: Tensor) -> Tensor:
        """Return ΣK_i(X)."""
        U, V = self._U.flatten(-3, -2), self._V
        own = (U @ X).view(V.shape) @ V.mT
        inner = torch.addcmul(self._straight * own, self._turned, own.mT) @ V
        plus = torch.addmm if X.ndim == 2 else torch.baddbmm
        image = plus(self._left @ X, X, self._right)
        return plus(image, U.mT, inner.flatten(-3, -2), out=image)

    def __getitem__(self, problems: Tensor) -> "Curvature":
        """Return that of some of several problems."""
        some = copy(self)
        for name, own in vars(self).items():
            setattr(some, name, own[problems])
        return some


def shrunk(sigma: Tensor, mu: Cutoff, level: Cutoff) -> Tensor:
    """Return σ − μ for what exceeds the level, and 0 for the rest."""
    return torch.where(sigma > level, sigma - mu, 0.0)


def _weights(sigma: Tensor, mu: float, level: Cutoff) -> tuple[Tensor, Tensor]:
    """Return the coefficients of X_jk and of X_kj between the known singular values, … × r; 0 for zeros."""
    d = shrunk(sigma, mu, level)
    one, other, d_one, d_other = sigma[..., None], sigma[..., None, :], d[..., None], d[..., None, :]
    both = (d_one > 0) & (d_other > 0)
    difference = one - other
    close = difference.abs() < 1e-5 * one.clamp(min=mu)
    symmetric = ((d_one - d_other) / difference.masked_fill_(close, 1.0)).clamp_(0, 1)
    symmetric = torch.where(both | close, both.to(sigma.dtype), symmetric)
    rotating = (d_one + d_other) / (one + other).clamp_(min=torch.finfo(sigma.dtype).tiny)
    return (symmetric + rotating) / 2, (symmetric - rotating) / 2


def conjugate_gradients(
    apply: Callable[[Tensor], Tensor], right: Tensor, reduction: float | Tensor, steps: int
) -> Tensor:
    """Return x with about apply(x) = right, the residual reduced by this factor.

    `right` is p × q, or that of several problems, of which each ends when it is done.
    """
    x, residual = torch.zeros_like(right), right.clone()
    direction, square = residual.clone(), inner_each(residual, residual)
    enough = reduction**2 * square
    for _ in range(steps):
        going = square > enough
        if not going.any():
            break
        image = apply(direction)
        length = torch.where(going, square / inner_each(direction, image), 0.0)
        x.addcmul_(direction, length)
        residual.addcmul_(image, length, value=-1)
        following = inner_each(residual, residual)
        direction = torch.addcmul(residual, torch.where(going, following / square, 0.0), direction)
        square = torch.where(going, following, 0.0)
    return x
