"""The leading singular triplets of a matrix: all whose singular value exceeds a limit.

Up to DIRECT columns from the Gram matrix's leading eigenpairs, beyond from subspaces that are sharpened by
Chebyshev polynomials of AᵀA (Zhou, Saad, Tiago and Chelikowsky 2006): products only, and the subspace of the
pass before is where they start.
"""

from collections.abc import Callable

import torch

from tasks.merging.lore.algebra import Factors, Tensor, gaussian, gram_matrix
from tasks.merging.lore.eigenpairs import eigenpairs_above, leading_eigenpairs

DIRECT = 400
"""Columns up to which leading eigenpairs cost less than sharpening subspaces."""
SHARE = 8
"""Beyond this fraction of the columns eigenpairs cost less, too."""
DEGREE = 2
"""Of the polynomial: products with AᵀA between two orthogonalisations."""
SPARE = 8
"""Columns of a subspace beyond those above the limit, at least; a quarter of these where that is more."""
CLEAR = 1.2
"""Of a number of triplets the last ones may lie among many that are hardly smaller, and never get sharp."""
STRONG = 2
"""Times what a polynomial is to suppress."""
ROUNDS = 12
"""Polynomials before a full decomposition takes over; one or two are usual."""


def triplets_above(A: Tensor, limit: float, start: Tensor, sharp: float, thorough: bool = False) -> Factors:
    """Return the triplets of A (m × n, m ≥ n) that exceed the limit, and some that are not sharp.

    `start` (n × k) spans about their right vectors, as those of a similar matrix do. `sharp` is the residual
    ‖AV − Uσ‖_F at which subspaces need no more work; `thorough` looks for what is missing in them first.
    """
    expected = start.shape[1]
    if A.shape[1] > DIRECT and expected < A.shape[1] // SHARE:
        found = _by_subspace(A, lambda sigma: int((sigma > limit).sum()), start, lambda _: sharp, thorough)
        if found is not None:
            return found
    # The Gram matrix squares the condition number; one product from either side makes up for that.
    return ritz(A, eigenpairs_above(gram_matrix(A), limit**2, expected).vectors)


def largest(A: Tensor, count: int, sharp: float) -> Factors:
    """Return the largest triplets of A (m × n, m ≥ n), so many or, where A has fewer columns, all.

    `sharp` is the residual at which subspaces need no more work, in units of their smallest singular value.
    """
    count = min(count, A.shape[1])
    if A.shape[1] > DIRECT and count < A.shape[1] // SHARE:
        start = gaussian(A.shape[1], count + _spare(count), like=A)
        found = _by_subspace(A, lambda _: count, start, lambda least: sharp * least, clear=CLEAR)
        if found is not None:
            return found.truncated(count)
    return ritz(A, leading_eigenpairs(gram_matrix(A), count).vectors)


def ritz(A: Tensor, V: Tensor) -> Factors:
    """Return Ritz triplets from a subspace V (n × k), by one product from either side."""
    U = torch.linalg.qr(A @ V).Q
    Q, R = torch.linalg.qr(A.T @ U)
    # On the CPU, wherever A is: for such small matrices a GPU's decomposition is slower.
    # AᵀU = QR = (QX)ΣZᵀ gives A's right vectors QX and its left ones UZ.
    X, sigma, Zt = (part.to(R.device) for part in torch.linalg.svd(R.cpu()))
    return Factors(U @ Zt.T, sigma, Q @ X)


def _by_subspace(
    A: Tensor,
    wanted: Callable[[Tensor], int],
    start: Tensor,
    sharp: Callable[[float], float],
    thorough: bool = False,
    clear: float = 1.0,
) -> Factors | None:
    """Sharpen a subspace until it holds the triplets wanted, a number that follows from the singular values.

    Those need not be sharp that exceed the smallest singular value by less than the factor `clear`; `sharp`
    returns the residual, given the smallest, at which the others are. None where the subspace would grow too
    large.
    """
    n, width = A.shape[1], max(start.shape[1], SPARE)
    found = ritz(A, widened(start, width))
    for done in range(ROUNDS):
        k = wanted(found.sigma)
        if found.rank < k + _spare(k):
            if 2 * k + _spare(k) > n // 2:
                return None
            width = 2 * k + _spare(k)
        else:
            least = float(found.sigma[-1])
            sure = found.truncated(k).above(clear * least)
            if done >= thorough and _residual(A, sure) <= sharp(least):
                return found.truncated(k + 2 * _spare(k))
        found = ritz(A, widened(filtered(A, found, float(found.sigma[-1])), width))
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


def filtered(A: Tensor, found: Factors, below: float) -> Tensor:
    """Return an orthonormal basis of p(AᵀA)V, p the Chebyshev polynomial that is small up to σ = `below`.

    Strong triplets are sharp already, and stay; rounding would carry them into all other columns.
    """
    strong = found.above(STRONG * below).V
    half = below**2 / 2  # AᵀA/half − 1 takes what is below to [−1, 1], where the polynomial is at most 1

    def product(X: Tensor) -> Tensor:
        Y = A.T @ (A @ X) / half
        return Y - strong @ (strong.T @ Y) - X

    before = found.V[:, strong.shape[1] :]
    here = product(before)
    for _ in range(DEGREE - 1):
        before, here = here, 2 * product(here) - before
    basis: Tensor = torch.linalg.qr(torch.cat([strong, here], 1)).Q
    return basis
