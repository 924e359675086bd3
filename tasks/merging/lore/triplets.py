"""The leading singular triplets of a matrix: all whose singular value exceeds a limit.

Up to DIRECT columns from the Gram matrix's leading eigenpairs, beyond from subspaces that are sharpened by
Chebyshev polynomials of AᵀA (Zhou, Saad, Tiago and Chelikowsky 2006): products only, and the subspace of the
pass before is where they start.
"""

from collections.abc import Callable

import torch

from tasks.merging.lore.algebra import (
    Factors,
    MatrixLike,
    Tensor,
    as_matrix,
    gaussian,
    gram_matrix,
    times,
    transposed,
    zero,
)
from tasks.merging.lore.eigenpairs import eigenpairs_above, leading_eigenpairs

DIRECT = 400
"""Columns up to which leading eigenpairs cost less than sharpening subspaces."""
TOGETHER = 128
"""Columns up to which all triplets of all matrices are found in one call."""
SHARE = 8
"""Beyond this fraction of the columns eigenpairs cost less, too."""
DEGREE = 2
"""Of the polynomial: products with AᵀA between two orthogonalisations."""
SHARP_SQUARES = 1e-10
"""Share of the least σ² wanted that the rounding of a Gram matrix may have where nothing makes up for it."""
SPARE = 8
"""Columns of a subspace beyond those above the limit, at least; a quarter of these where that is more."""
CLEAR = 1.2
"""Of a number of triplets the last ones may lie among many that are hardly smaller, and never get sharp."""
STRONG, STEEPEST = 2, 16
"""Times what a polynomial is to suppress: what is kept out of it, and what may be in it."""
ROUNDS = 12
"""Polynomials before a full decomposition takes over; one or two are usual."""


def triplets_above(
    A: MatrixLike, limit: float, start: Factors, sharp: float, thorough: bool = False
) -> Factors:
    """Return the triplets of A (m × n, m ≥ n) that exceed the limit, and some that are not sharp.

    `start` are those of a similar matrix. `sharp` is the residual ‖AV − Uσ‖_F at which subspaces need no more
    work; `thorough` looks for what is missing in them first.
    """
    expected = start.rank
    if A.shape[1] > DIRECT and expected < A.shape[1] // SHARE:
        found = _by_subspace(A, lambda sigma: int((sigma > limit).sum()), start, lambda _: sharp, thorough)
        if found is not None:
            return found
    # The Gram matrix squares the condition number; one product from either side makes up for that.
    own = as_matrix(A)
    return ritz(own, eigenpairs_above(gram_matrix(own), limit**2, expected).vectors)


def largest(A: Tensor, count: int, sharp: float) -> Factors:
    """Return the largest triplets of A (m × n, m ≥ n), so many or, where A has fewer columns, all.

    `sharp` is the residual at which subspaces need no more work, in units of their smallest singular value.
    """
    count = min(count, A.shape[1])
    if A.shape[1] > DIRECT and count < A.shape[1] // SHARE:
        width = count + _spare(count)
        found = _by_subspace(
            A, lambda _: count, zero(A), lambda least: sharp * least, clear=CLEAR, width=width
        )
        if found is not None:
            return found.truncated(count)
    return ritz(A, leading_eigenpairs(gram_matrix(A), count).vectors)


def every(A: Tensor, limit: float) -> list[Factors]:
    """Return the triplets that exceed the limit of each of N × m × n matrices, m ≥ n, float64.

    By Gram matrices where their rounding leaves the triplets sharp.
    """
    squares, V = torch.linalg.eigh(A.mT @ A)
    if torch.finfo(A.dtype).eps * float(squares.max()) > SHARP_SQUARES * limit**2:
        U, sigma, Vt = torch.linalg.svd(A, full_matrices=False)
        V = Vt.mT
    else:
        V = V.flip(-1)
        U = A @ V
        sigma = torch.linalg.vector_norm(U, dim=1)
        U /= sigma[:, None]
    return [Factors(*parts).above(limit) for parts in zip(U, sigma, V, strict=True)]


def ritz(A: MatrixLike, V: Tensor) -> Factors:
    """Return Ritz triplets from a subspace V (n × k), by one product from either side."""
    return _sharpened(A, V)[0]


def _sharpened(A: MatrixLike, V: Tensor) -> tuple[Factors, Tensor]:
    """Return Ritz triplets U, σ, V' from a subspace V, and the residuals AᵀU − VVᵀAᵀU, column by column.

    V' is the span of AᵀU, and nearer than V: the residuals of the triplets are no larger than these.
    """
    U, own = torch.linalg.qr(times(A, V))
    image = times(transposed(A), U)
    Q, R = torch.linalg.qr(image)
    # On the CPU, wherever A is: for such small matrices a GPU's decomposition is slower.
    # AᵀU = QR = (QX)ΣZᵀ gives A's right vectors QX and its left ones UZ.
    X, sigma, Zt = (part.to(R.device) for part in torch.linalg.svd(R.cpu()))
    left = torch.linalg.vector_norm((image - V @ own.T) @ Zt.T, dim=0)
    return Factors(U @ Zt.T, sigma, Q @ X), left


def _by_subspace(
    A: MatrixLike,
    wanted: Callable[[Tensor], int],
    start: Factors,
    sharp: Callable[[float], float],
    thorough: bool = False,
    clear: float = 1.0,
    width: int = SPARE,
) -> Factors | None:
    """Sharpen a subspace until it holds the triplets wanted, a number that follows from the singular values.

    Those need not be sharp that exceed the smallest singular value by less than the factor `clear`; `sharp`
    returns the residual, given the smallest, at which the others are. None where the subspace would grow too
    large.
    """
    n = A.shape[1]
    if start.rank == 0:
        found, left = _sharpened(A, widened(start.V, width))
    else:
        width = max(start.rank, width)
        basis = start.V
        # what was sharp in the matrix before is so no more: the polynomial takes it along, unless too steep
        if start.rank > 1 and float(start.sigma[0]) < STEEPEST * (below := float(start.sigma[-1])):
            basis = filtered(A, start.V, start.V[:, :0], below)
        found, left = _sharpened(A, widened(basis, width))
    for done in range(ROUNDS):
        k = wanted(found.sigma)
        if found.rank < k + _spare(k) // 2:
            if 2 * k + _spare(k) > n // 2:
                return None
            width = 2 * k + _spare(k)
        else:
            least = float(found.sigma[-1])
            sure = found.truncated(k).above(clear * least).rank
            # the product that made V' from V took off that much, if what is missing is smaller than the last
            last = least if clear > 1 else float(found.sigma[max(sure, 1) - 1])
            residual = float(torch.linalg.vector_norm(left[:sure] * (last / found.sigma[:sure])))
            if done >= thorough and residual <= sharp(least):
                return found.truncated(k + 3 * _spare(k) // 2)
        below = float(found.sigma[-1])
        # strong triplets are sharp already, and stay; rounding would carry them into all other columns
        strong = found.above(STRONG * below).V
        basis = filtered(A, found.V[:, strong.shape[1] :], strong, below)
        found, left = _sharpened(A, widened(basis, width))
    return None


def _spare(k: int) -> int:
    return max(SPARE, k // 4)


def widened(V: Tensor, width: int) -> Tensor:
    """Return V with random columns added, orthonormal."""
    if V.shape[1] >= width:
        return V
    more = gaussian(len(V), width - V.shape[1], like=V)
    basis: Tensor = torch.linalg.qr(torch.cat([V, more], 1)).Q
    return basis


def filtered(A: MatrixLike, V: Tensor, apart: Tensor, below: float) -> Tensor:
    """Return an orthonormal basis of p(AᵀA)V and what is set apart.

    p is the Chebyshev polynomial that is small up to σ = `below`.
    """
    turned = transposed(A)
    half = below**2 / 2  # AᵀA/half − 1 takes what is below to [−1, 1], where the polynomial is at most 1

    def square(X: Tensor) -> Tensor:
        Y = times(turned, times(A, X)) / half
        return Y - apart @ (apart.T @ Y) - X

    before, here = V, square(V)
    for _ in range(DEGREE - 1):
        before, here = here, 2 * square(here) - before
    basis: Tensor = torch.linalg.qr(torch.cat([apart, here], 1)).Q
    return basis
