"""The leading singular triplets of a matrix: all whose singular value exceeds a limit.

Up to DIRECT columns from the Gram matrix's leading eigenpairs, beyond from subspaces that are sharpened by
Chebyshev polynomials of AᵀA (Zhou, Saad, Tiago and Chelikowsky 2006): products only, and the subspace of the
pass before is where they start.
"""

from collections.abc import Callable

import torch

from tasks.merging.lore.algebra import Factors, Tensor, gaussian, gram_matrix
from tasks.merging.lore.eigenpairs import eigenpairs_above, leading_eigenpairs

DIRECT = 1200
"""Columns up to which leading eigenpairs cost less than sharpening subspaces."""
SHARE = 5
"""Beyond a fifth of the columns eigenpairs cost less, too."""
DEGREE = 6
"""Of the polynomial: products with AᵀA between two orthogonalisations."""
SPARE = 8
"""Columns of a subspace beyond those above the limit, at least; a quarter of these where that is more."""
CLOSE = 1.02
"""Singular values within this factor of the subspace's smallest never get sharp, and need not."""
ROUNDS = 12
"""Polynomials before a full decomposition takes over; one or two are usual."""


def triplets_above(A: Tensor, limit: float, start: Tensor, sharp: float) -> Factors:
    """Return the triplets of A (m × n, m ≥ n) whose singular value exceeds the limit.

    `start` (n × k) spans about their right vectors, as those of a similar matrix do. `sharp` is the residual
    ‖AV − Uσ‖_F at which subspaces need no more work.
    """
    expected = start.shape[1]
    if A.shape[1] > DIRECT and expected < A.shape[1] // SHARE:
        found = _by_subspace(A, lambda sigma: int((sigma > limit).sum()), start, sharp)
        if found is not None:
            return found
    # The Gram matrix squares the condition number; one product from either side makes up for that.
    return ritz(A, eigenpairs_above(gram_matrix(A), limit**2, expected).vectors).above(limit)


def largest(A: Tensor, count: int, sharp: float) -> Factors:
    """Return the largest triplets of A (m × n, m ≥ n), so many or, where A has fewer columns, all."""
    count = min(count, A.shape[1])
    if A.shape[1] > DIRECT and count < A.shape[1] // SHARE:
        found = _by_subspace(A, lambda _: count, A.new_zeros(A.shape[1], 0), sharp)
        if found is not None:
            return found
    return ritz(A, leading_eigenpairs(gram_matrix(A), count).vectors)


def ritz(A: Tensor, V: Tensor) -> Factors:
    """Return Ritz triplets from a subspace V (n × k), by one product from either side."""
    U = torch.linalg.qr(A @ V).Q
    Q, R = torch.linalg.qr(A.T @ U)
    # On the CPU, wherever A is: for such small matrices a GPU's decomposition is slower.
    # AᵀU = QR = (QX)ΣZᵀ gives A's right vectors QX and its left ones UZ.
    X, sigma, Zt = (part.to(R.device) for part in torch.linalg.svd(R.cpu()))
    return Factors(U @ Zt.T, sigma, Q @ X)


def _by_subspace(A: Tensor, wanted: Callable[[Tensor], int], start: Tensor, sharp: float) -> Factors | None:
    """Sharpen a subspace until it holds the triplets wanted, a number that follows from the singular values.

    None where it would grow too large.
    """
    n, width = A.shape[1], max(start.shape[1], wanted(start))
    found = ritz(A, widened(start, width + _spare(width)))
    for _ in range(ROUNDS):
        k = wanted(found.sigma)
        if found.rank < k + _spare(k):
            if 2 * k + _spare(k) > n // 2:
                return None
            V = widened(found.V, 2 * k + _spare(k))
        else:
            # of a number of triplets the last ones may lie among many that are hardly smaller
            if _residual(A, found.truncated(k).above(CLOSE * float(found.sigma[-1]))) <= sharp:
                return found.truncated(k)
            V = found.V
        found = ritz(A, torch.linalg.qr(filtered(A, V, float(found.sigma[-1]))).Q)
    return None


def _spare(k: int) -> int:
    return max(SPARE, k // 4)


def _residual(A: Tensor, found: Factors) -> float:
    # A V = U Σ for Ritz triplets only in the end; AᵀU = VΣ holds by construction
    return float(torch.linalg.matrix_norm(A @ found.V - found.U * found.sigma))


def widened(V: Tensor, width: int) -> Tensor:
    """Return V with random columns added, orthonormal."""
    if V.shape[1] >= width:
        return V
    more = gaussian(len(V), width - V.shape[1], like=V)
    basis: Tensor = torch.linalg.qr(torch.cat([V, more], 1)).Q
    return basis


def filtered(A: Tensor, V: Tensor, below: float) -> Tensor:
    """Return p(AᵀA)V for the Chebyshev polynomial that is small on singular values up to `below`."""
    half = below**2 / 2  # AᵀA/half − 1 takes those to [−1, 1], where the polynomial is at most 1
    before, here = V, A.T @ (A @ V) / half - V
    for _ in range(DEGREE - 1):
        before, here = here, 2 * (A.T @ (A @ here) / half - here) - before
        size = torch.linalg.vector_norm(here, dim=0).max()
        before, here = before / size, here / size  # it grows like σ^(2·degree)
    return here
