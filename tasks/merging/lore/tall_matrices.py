"""Matrices with many more rows than columns, such as embeddings: solved on a triangular factor of few rows.

The problem does not change under an isometry of the rows, so B_1 … B_{N−1} side by side, (N−1)n columns, are
replaced by their triangular factor: (N−1)n rows instead of m. Of its solution only the right singular vectors
are used; the left ones follow from the fixed point S = Σ(B_i + S/N)W_i, W_i = V_i diag(kept_i) V_iᵀ, where
kept = 1 − t/σ is the share of a singular value that thresholding leaves.
"""

from collections.abc import Callable
from typing import TypeAlias

import torch

from tasks.merging.lore.algebra import Factors, Tensor, energy, gram_matrix
from tasks.merging.lore.certificate import certify
from tasks.merging.lore.penalty import Scale
from tasks.merging.lore.problem import NotConverged, Solution

Solver: TypeAlias = Callable[[Tensor, Scale, float], Solution]

SHRUNK_SHARE = 0.7
"""Share of the tolerance for solving; the rest is left for the step to the fixed point afterwards."""
TALL_GRAM_SHARE = 0.1
"""Share of the tolerance that the Gram matrix's rounding may cost: it squares the condition number."""
TALL = 4
"""Rows of B_i for each row of the triangular factor, from where on shrinking pays."""
ROWS_AT_ONCE = 2**11
"""Rows whose products are summed in the matrices' own precision; the sums are added up in float64."""


def is_tall(B: Tensor) -> bool:
    """Tell whether N × m × n deviations are worth shrinking."""
    N, m, n = B.shape
    return m >= TALL * (N - 1) * n


def solve_tall(B: Tensor, scale: Scale, tolerance: float, solve_small: Solver) -> Solution | None:
    """Solve for N × m × n deviations that sum to zero; None where the tolerance could not be proven."""
    small = shrunk(B)
    if small is None:
        return None
    try:
        found = solve_small(small, scale, SHRUNK_SHARE * tolerance)
    except NotConverged:
        return None  # the Gram matrix may have lost what the matrices themselves still show
    # A narrow matrix was solved in float64; the products with B have to be in B's own precision.
    found = found._replace(deltas=[delta.to(B.dtype) for delta in found.deltas])
    largest = max((spectrum[0] for spectrum in found.spectra if spectrum), default=0.0)
    if torch.finfo(B.dtype).eps * largest**2 > TALL_GRAM_SHARE * tolerance * max(found.thresholds) ** 2:
        return None  # singular values are known no better than their squares
    # Proven on the small matrices, after the same step: an isometry keeps gap and feasibility.
    refreshed = refresh(small, found)
    gap = certify(small, energy(small), refreshed, found.penalty, found.thresholds, tolerance)
    return None if gap is None else found._replace(deltas=refresh(B, found), gap=gap, solver="tall")


def shrunk(B: Tensor) -> Tensor | None:
    """Return N × (N−1)n × n matrices with the same products B_iᵀB_j; None where rounding forbids it."""
    N, m, n = B.shape
    k = (N - 1) * n
    G = torch.zeros(k, k, dtype=torch.float64, device=B.device)
    for start in range(0, m, ROWS_AT_ONCE):
        # B_N = −ΣB_i is redundant: with it G would be singular
        rows = B[:-1, start : start + ROWS_AT_ONCE]
        G += gram_matrix(rows.transpose(0, 1).reshape(-1, k))
    # Rounding may make G indefinite; a diagonal of its size keeps the Cholesky factor real.
    G.diagonal().add_(torch.finfo(B.dtype).eps * G.diagonal().mean())
    L, info = torch.linalg.cholesky_ex(G)
    if int(info):
        return None
    first = L.T.to(B.dtype).reshape(k, N - 1, n).transpose(0, 1)
    return torch.cat([first, -first.sum(0, keepdim=True)])


def refresh(B: Tensor, found: Solution) -> list[Factors]:
    """Return the δ_i = (B_i + S/N)W_i that follow from the right singular vectors of a solution.

    With L = (B_1V_1 … B_NV_N), V = (V_1 … V_N) and M = √kept VᵀV √kept: S = N L √kept (N − M)⁻¹ √kept Vᵀ.
    """
    N = len(B)
    kept = [delta.sigma / (delta.sigma + t) for delta, t in zip(found.deltas, found.thresholds, strict=True)]
    images = [b @ delta.V for b, delta in zip(B, found.deltas, strict=True)]
    # The inverse is of the size of all ranks together; in float64, because N − M may be nearly singular.
    V, root = torch.cat([delta.V for delta in found.deltas], -1), torch.cat(kept).double().sqrt()
    overlaps = (V.T @ V).double()
    M = root[:, None] * overlaps * root
    inverse = torch.linalg.inv(N * torch.eye(len(root), dtype=M.dtype, device=M.device) - M)
    # S V_i / N for all i at once: S/N = left · Vᵀ
    left = torch.cat(images, -1) @ (root[:, None] * inverse * root).to(B.dtype)
    pulls = (left @ overlaps.to(B.dtype)).split([delta.rank for delta in found.deltas], -1)
    return [
        _factors(image + pull, share, delta.V)
        for image, pull, share, delta in zip(images, pulls, kept, found.deltas, strict=True)
    ]


def _factors(left: Tensor, share: Tensor, V: Tensor) -> Factors:
    """Return left·diag(share)·Vᵀ as factors; the columns of `left` are orthogonal at the fixed point."""
    sigma = torch.linalg.vector_norm(left, dim=0)
    return Factors(left / sigma, sigma * share, V)
