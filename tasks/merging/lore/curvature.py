"""The curvature of the fit: by how much Clip_μ changes with z, in the span of the leading singular vectors.

K, the derivative of the singular value thresholding at A = UΣVᵀ, takes a matrix X with the coefficients
X_jk = u_jᵀXv_k to, with d = max(σ − μ, 0),

    (d_jσ_j − d_kσ_k)/(σ_j² − σ_k²) · X_jk + (d_jσ_k − d_kσ_j)/(σ_j² − σ_k²) · X_kj

which is 1 between singular values above μ but for their rotation, and 0 between those below.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from tasks.merging.lore.algebra import Factors, Tensor


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


def joint(found: Sequence[Factors], before: Sequence[Factors]) -> Bases:
    """Return the span of the leading singular vectors, and of those of the pass before."""
    parts = [*found, *before]
    return Bases(*(torch.linalg.qr(torch.cat([part[side] for part in parts], 1)).Q for side in (0, 2)))


class Curvature:
    """ΣK_i on cores p × q."""

    def __init__(
        self,
        found: Sequence[Factors],
        cuts: tuple[float, float],
        bases: Bases,
        outside: Callable[[Tensor], Tensor],
    ) -> None:
        """Take the leading triplets; `outside` gives K's coefficient between σ and what does not lead."""
        # One product for all matrices instead of one each: cores are small, and calls would take the time.
        # Where one has fewer triplets than another, columns of zeros take their place.
        N, rank = len(found), max(part.rank for part in found)
        p, q = bases.U.shape[1], bases.V.shape[1]
        self._U, self._V = bases.U.new_zeros(N, rank, p), bases.V.new_zeros(N, rank, q)
        self._alpha = bases.U.new_zeros(N, rank, 1)
        self._straight, self._turned = bases.U.new_zeros(2, N, rank, rank)
        for i, part in enumerate(found):
            r = part.rank
            self._U[i, :r], self._V[i, :r] = part.U.T @ bases.U, part.V.T @ bases.V
            self._alpha[i, :r, 0] = outside(part.sigma)
            self._straight[i, :r, :r], self._turned[i, :r, :r] = _weights(part.sigma, *cuts)
        # between leading vectors by the weights, between a leading one and all others by α: those between
        # leading ones are taken off where rows and columns have α
        self._straight -= self._alpha + self._alpha.mT

    def of(self, X: Tensor) -> Tensor:
        """Return ΣK_i(X)."""
        U, V, alpha = self._U, self._V, self._alpha
        (N, r, p), q = U.shape, V.shape[2]
        flat_U, flat_V = U.view(N * r, p), V.view(N * r, q)
        rows, columns = (flat_U @ X).view(N, r, q), (flat_V @ X.T).view(N, r, p)
        own = rows @ V.mT
        rows = torch.baddbmm(alpha * rows, self._straight * own + self._turned * own.mT, V)
        return flat_U.T @ rows.view(N * r, q) + (alpha * columns).view(N * r, p).T @ flat_V


def shrunk(sigma: Tensor, mu: float, level: float) -> Tensor:
    """Return σ − μ for what exceeds the level, and 0 for the rest."""
    return torch.where(sigma > level, sigma - mu, 0.0)


def _weights(sigma: Tensor, mu: float, level: float) -> tuple[Tensor, Tensor]:
    """Return the coefficients of X_jk and of X_kj between the known singular values."""
    d = shrunk(sigma, mu, level)
    difference, total = sigma[:, None] - sigma, sigma[:, None] + sigma
    both = (d[:, None] > 0) & (d > 0)
    close = difference.abs() < 1e-6 * mu
    symmetric = ((d[:, None] - d) / difference.masked_fill(close, 1.0)).clamp(0, 1)
    symmetric = torch.where(both | close, both.to(sigma.dtype), symmetric)
    rotating = (d[:, None] + d) / total
    return (symmetric + rotating) / 2, (symmetric - rotating) / 2


def conjugate_gradients(
    apply: Callable[[Tensor], Tensor], right: Tensor, reduction: float, steps: int
) -> Tensor:
    """Return x with about apply(x) = right, the residual reduced by this factor."""
    x, residual = torch.zeros_like(right), right.clone()
    direction, square = residual.clone(), float((residual * residual).sum())
    enough = reduction**2 * square
    for _ in range(steps):
        if square <= enough:
            break
        image = apply(direction)
        length = square / float((direction * image).sum())
        x.add_(direction, alpha=length)
        residual.sub_(image, alpha=length)
        following = float((residual * residual).sum())
        direction = residual + following / square * direction
        square = following
    return x
