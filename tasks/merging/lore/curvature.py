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
        self._alpha = torch.cat([outside(part.sigma) for part in found])
        self._U, self._V = (
            torch.cat([bases[side].T @ part[2 * side] for part in found], 1) for side in (0, 1)
        )
        ranks = [part.rank for part in found]
        ends = [sum(ranks[: i + 1]) for i in range(len(ranks))]
        self._parts = [slice(end - rank, end) for end, rank in zip(ends, ranks, strict=True)]
        self._weights = [_weights(part.sigma, *cuts) for part in found]

    def of(self, X: Tensor) -> Tensor:
        """Return ΣK_i(X)."""
        U, V, alpha = self._U, self._V, self._alpha
        rows, columns = U.T @ X, X @ V
        for part, (straight, turned) in zip(self._parts, self._weights, strict=True):
            own = rows[part] @ V[:, part]
            # between leading vectors by the weights, between a leading one and all others by α
            columns[:, part] -= U[:, part] @ own
            inner = straight * own + turned * own.T - alpha[part, None] * own
            rows[part] = alpha[part, None] * rows[part] + inner @ V[:, part].T
        return U @ rows + (columns * alpha) @ V.T


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
