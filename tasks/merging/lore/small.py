"""Decompositions of long columns and of small matrices, as each device does them fastest."""

import torch

from tasks.merging.lore.algebra import Tensor

MOST_CONDITION = 1e7
"""Of columns, scaled to equal length, for which their Gram matrix in float64 has a Cholesky factor."""
ONCE = 1e4
"""Condition up to which one such factor makes a basis orthonormal in float32; two do beyond."""
SMALL = 64
"""Columns up to which LAPACK is faster than a GPU, transfer included."""


def orthonormal_basis(X: Tensor) -> tuple[Tensor, Tensor]:
    """Return Q with orthonormal columns and R with QR = X, … × m × k.

    Float32 by a Gram matrix in float64 (Yamamoto et al. 2015, CholeskyQR2), in half the time of Householder
    reflections, which are left where the condition is large.
    """
    if X.dtype == torch.float32 and X.shape[-1]:
        Y, upper = X.double(), None
        for _ in range(2):
            G = Y.mT @ Y
            L, info = torch.linalg.cholesky_ex(G)
            one = torch.eye(L.shape[-1], dtype=L.dtype, device=L.device)
            inverse = torch.linalg.solve_triangular(L, one.expand_as(L), upper=False)
            # an upper bound, because that of L with rows scaled to length 1 is at most √k ‖inverse‖
            scaled = inverse * G.diagonal(dim1=-2, dim2=-1)[..., None, :].sqrt()
            condition = torch.linalg.matrix_norm(scaled) * L.shape[-1] ** 0.5
            worst = float(torch.where(info > 0, torch.inf, condition).max())
            if not worst <= MOST_CONDITION:  # NaN, too
                break
            Y, upper = Y @ inverse.mT, L.mT if upper is None else L.mT @ upper
            if worst <= ONCE:
                return Y.to(X.dtype), upper.to(X.dtype)
    Q, R = torch.linalg.qr(X)
    return Q, R


def small_svd(R: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return X, σ, Zᵀ with R = X diag(σ) Zᵀ, … × k × k, where R is."""
    if R.is_cuda and R.shape[-1] > SMALL:
        precise = R.double()
        Z = torch.linalg.eigh(precise.mT @ precise).eigenvectors.flip(-1)
        X, upper = torch.linalg.qr(precise @ Z)  # orthogonal but for where R is singular: upper is diagonal
        sigma = upper.diagonal(dim1=-2, dim2=-1)
        X, sigma = X * sigma.sign()[..., None, :], sigma.abs()
        return X.to(R.dtype), sigma.to(R.dtype), Z.mT.to(R.dtype)
    X, sigma, Zt = (part.to(R.device) for part in torch.linalg.svd(R.cpu()))
    return X, sigma, Zt
