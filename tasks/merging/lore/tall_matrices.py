"""Matrices with many more rows than columns, such as embeddings: solved on a triangular factor of few rows.

The problem does not change under an isometry of the rows, so B_1 … B_{N−1} side by side, (N−1)n columns, are
replaced by their triangular factor: (N−1)n rows instead of m. Of its solution only the right singular vectors
are used; the left ones follow from the fixed point S = Σ(B_i + S/N)W_i, W_i = V_i diag(kept_i) V_iᵀ, where
kept = 1 − μ/σ is the share of a singular value that thresholding leaves. What comes out is proven like any
other iterate, on the matrices themselves.
"""

import torch

from tasks.merging.lore.algebra import Factors, Shifted, Tensor, gram_matrix, product
from tasks.merging.lore.place import best_base, norms_of
from tasks.merging.lore.problem import Iterate
from tasks.merging.lore.triplets import ritz

TALL = 4
"""Rows of B_i for each row of the triangular factor, from where on shrinking pays."""
ROUNDINGS = (1, 30)
"""What is added to the diagonal of the products, in units of ε and its mean."""
ROWS_AT_ONCE = 2**12
"""Rows whose products are summed in float32; the sums are added up in float64."""


def is_tall(B: Tensor) -> bool:
    """Tell whether N × m × n deviations are worth shrinking."""
    N, m, n = B.shape
    return m >= TALL * (N - 1) * n


def triangular(B: Tensor) -> Tensor | None:
    """Return N × (N−1)n × n matrices with the same products B_iᵀB_j; None where rounding forbids it."""
    N, m, n = B.shape
    k = (N - 1) * n
    G = torch.zeros(k, k, dtype=torch.float64, device=B.device)
    for start in range(0, m, ROWS_AT_ONCE):
        # B_N = −ΣB_i is redundant: with it G would be singular
        rows = B[:-1, start : start + ROWS_AT_ONCE].transpose(0, 1).reshape(-1, k)
        G += gram_matrix(rows)
    # Rounding may make G indefinite, where few rows differ; a diagonal of its size keeps the factor real.
    own = G.diagonal().clone()
    for size in ROUNDINGS:
        G.diagonal().copy_(own + size * torch.finfo(B.dtype).eps * own.mean())
        L, info = torch.linalg.cholesky_ex(G)
        if not int(info):
            break
    else:
        return None
    first = L.T.to(B.dtype).reshape(k, N - 1, n).transpose(0, 1)
    return torch.cat([first, -first.sum(0, keepdim=True)])


def lifted(B: Tensor, small: Iterate) -> Iterate:
    """Return the iterate whose leading right singular vectors are those of the small matrices."""
    z = best_base(refresh(B, [delta.to(B.dtype) for delta in small.deltas], small.mu))
    found = [ritz(Shifted(b, z), part.V.to(B.dtype)) for b, part in zip(B, small.leading, strict=True)]
    deltas = [part.thresholded(small.mu) for part in found]
    return Iterate(z, found, deltas, norms_of(z, deltas), small.mu, small.cut, small.passes)


def refresh(B: Tensor, deltas: list[Factors], mu: float) -> list[Factors]:
    """Return the δ_i = (B_i + S/N)W_i that follow from right singular vectors.

    With L = (B_1V_1 … B_NV_N), V = (V_1 … V_N) and M = √kept VᵀV √kept: S = N L √kept (N − M)⁻¹ √kept Vᵀ.
    """
    N = len(B)
    kept = [delta.sigma / (delta.sigma + mu) for delta in deltas]
    images = [product(b, delta.V) for b, delta in zip(B, deltas, strict=True)]
    # The inverse is of the size of all ranks together; in float64, because N − M may be nearly singular.
    V, root = torch.cat([delta.V for delta in deltas], -1), torch.cat(kept).double().sqrt()
    overlaps = (V.T @ V).double()
    M = root[:, None] * overlaps * root
    inverse = torch.linalg.inv(N * torch.eye(len(root), dtype=M.dtype, device=M.device) - M)
    # S V_i / N for all i at once: S/N = left · Vᵀ
    left = torch.cat(images, -1) @ (root[:, None] * inverse * root).to(B.dtype)
    pulls = (left @ overlaps.to(B.dtype)).split([delta.rank for delta in deltas], -1)
    return [
        _factors(image + pull, share, delta.V)
        for image, pull, share, delta in zip(images, pulls, kept, deltas, strict=True)
    ]


def _factors(left: Tensor, share: Tensor, V: Tensor) -> Factors:
    """Return left·diag(share)·Vᵀ as factors; the columns of `left` are orthogonal at the fixed point."""
    sigma = torch.linalg.vector_norm(left, dim=0)
    return Factors(left / sigma, sigma * share, V)
