"""Orthonormal bases and singular values of long columns, … × m × k.

On the CPU by Householder reflections. On a GPU these are many short calls: there by Gram matrices in float64,
which are small and are decomposed on the CPU, where the condition allows it.
"""

import torch
from torch import Tensor

FACTOR_UP_TO = 1e7
"""Condition of columns, scaled to equal length, up to which their Gram matrix has a Cholesky factor."""
ONE_UP_TO = 1e4
"""Condition up to which one such factor makes a basis orthonormal in float32; two do beyond."""
SMALL = 192
"""Columns of a Gram matrix up to which LAPACK is faster than a GPU, transfers included."""
SPARE = 8
"""Columns of a subspace beyond those that are sought, at least; a quarter of these where that is more."""


def spare(k: int) -> int:
    """Return how many more columns a subspace has than those that are sought."""
    return max(SPARE, k // 4)


def orthonormal_basis(X: Tensor) -> tuple[Tensor, Tensor]:
    """Return Q with orthonormal columns and R with QR = X."""
    found = basis_by_gram(X) if X.is_cuda else None
    if found is not None:
        return found
    Q, R = torch.linalg.qr(X)
    return Q, R


def thin_svd(X: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return Q, σ and Zᵀ with X = Q diag(σ) Zᵀ, σ descending."""
    found = svd_by_gram(X) if X.is_cuda else None
    if found is not None:
        return found
    Q, R = orthonormal_basis(X)
    P, sigma, Zt = (part.to(X.device) for part in torch.linalg.svd(R.cpu()))
    return Q @ P, sigma, Zt


def basis_by_gram(X: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return Q and R for float32 (Yamamoto et al. 2015, CholeskyQR2); None where the condition is large."""
    if X.dtype != torch.float32 or not X.shape[-1]:
        return None
    Y, upper = X.double(), None
    for _ in range(2):
        G = near(Y.mT @ Y)
        L, info = torch.linalg.cholesky_ex(G)
        one = torch.eye(G.shape[-1], dtype=G.dtype, device=G.device)
        inverse = torch.linalg.solve_triangular(L, one.expand_as(L), upper=False)
        # an upper bound, because that of L with rows scaled to length 1 is at most √k ‖inverse‖
        scaled = inverse * G.diagonal(dim1=-2, dim2=-1)[..., None, :].sqrt()
        condition = torch.linalg.matrix_norm(scaled) * G.shape[-1] ** 0.5
        worst = float(torch.where(info > 0, torch.inf, condition).max())
        if not worst <= FACTOR_UP_TO:  # NaN, too
            return None
        Y, upper = Y @ inverse.mT.to(Y.device), L.mT if upper is None else L.mT @ upper
        if worst <= ONE_UP_TO:
            return Y.to(X.dtype), upper.to(X)
    return None


def svd_by_gram(X: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
    """Return Q, σ and Zᵀ for float32, from eigenpairs; None where the condition is large."""
    if X.dtype != torch.float32 or not X.shape[-1]:
        return None
    Y = X.double()
    squares, Z = torch.linalg.eigh(near(Y.mT @ Y))
    sigma, Z = squares.clamp(min=0).sqrt().flip(-1), Z.flip(-1)
    if not bool((sigma[..., 0] < ONE_UP_TO * sigma[..., -1]).all()):
        return None
    return (Y @ (Z / sigma[..., None, :]).to(Y.device)).to(X.dtype), sigma.to(X), Z.mT.to(X)


def near(G: Tensor) -> Tensor:
    """Return small matrices where they are decomposed."""
    return G.cpu() if G.shape[-1] <= SMALL else G
