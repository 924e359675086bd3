"""The curvature of the fit: by how much Clip_μ changes with z, in the span of the leading singular vectors.

K, the derivative of the singular value thresholding at A = UΣVᵀ, takes a matrix X with the coefficients
X_jk = u_jᵀXv_k to, with d = max(σ − μ, 0),

    (d_jσ_j − d_kσ_k)/(σ_j² − σ_k²) · X_jk + (d_jσ_k − d_kσ_j)/(σ_j² − σ_k²) · X_kj

which is 1 between singular values above μ but for their rotation, and 0 between those below.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from tasks.merging.lore.algebra import Tensor
from tasks.merging.lore.triplets import Triplets



class Span(NamedTuple):
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


def joint(found: Sequence[Triplets], before: Sequence[Triplets]) -> Span:
    """Return the span of the leading singular vectors, and of those of the pass before."""
    parts = [*found, *before]
    return Span(*(torch.linalg.qr(torch.cat([part[side] for part in parts], 1)).Q for side in (0, 2)))


class Curvature:
    """ΣK_i on cores p × q."""

    def __init__(self, found: Sequence[Triplets], cuts: tuple[float, float], span: Span, outside: Callable[[Tensor], Tensor]) -> None:
        """Take the leading triplets; `outside` gives K's coefficient between σ and what does not lead."""
        self._counts = [part.count for part in found]
        self._U = torch.cat([span.U.T @ part.U for part in found], 1)
        self._V = torch.cat([span.V.T @ part.V for part in found], 1)
        self._weights = [_weights(part.sigma, *cuts) for part in found]
        self._outside = torch.cat([outside(part.sigma) for part in found])

    def of(self, X: Tensor) -> Tensor:
        """Return ΣK_i(X)."""
        L, R = self._U.T @ X, X @ self._V
        alpha, rows, columns = self._outside, [], []
        for (straight, turned), own, u, v in zip(
            self._weights,
            L.split(self._counts),
            self._U.split(self._counts, 1),
            self._V.split(self._counts, 1),
            strict=True,
        ):
            C = own @ v
            rows.append((straight * C + turned * C.T, C, u, v))
        # between a leading vector and all that is not leading: α times the coefficients
        inner = torch.cat([known @ v.T for known, _, _, v in rows])
        left = torch.cat([own - C @ v.T for (_, C, _, v), own in zip(rows, L.split(self._counts), strict=True)])
        right = torch.cat(
            [own - u @ C for (_, C, u, _), own in zip(rows, R.split(self._counts, 1), strict=True)], 1
        )
        return self._U @ (inner + alpha[:, None] * left) + (right * alpha) @ self._V.T


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
