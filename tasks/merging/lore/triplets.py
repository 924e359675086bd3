"""The leading singular triplets of matrices: all whose singular value exceeds a limit.

Up to DIRECT columns from the Gram matrix's leading eigenpairs, beyond from subspaces: products only, and the
subspace of the pass before is where they start.
"""

from collections.abc import Sequence

import torch

from tasks.merging.lore.algebra import Factors, MatrixLike, Tensor, each, gram_matrix
from tasks.merging.lore.eigenpairs import eigenpairs_above, leading_eigenpairs
from tasks.merging.lore.subspaces import Sought, leading_subspaces, ritz, spare

DIRECT = 400
"""Columns up to which leading eigenpairs cost less than sharpening subspaces."""
TOGETHER = 128
"""Columns up to which all triplets of all matrices are found in one call."""
SHARE = 8
"""Beyond this fraction of the columns eigenpairs cost less, too."""
SHARP_SQUARES = 1e-10
"""Share of the least σ² wanted that the rounding of a Gram matrix may have where nothing makes up for it."""
CLEAR = 1.2
"""Of a number of triplets the last ones may lie among many that are hardly smaller, and never get sharp."""


def triplets_above(
    A: MatrixLike, limit: float, starts: Sequence[Factors], sharp: float, thorough: bool = False
) -> list[Factors]:
    """Return the triplets that exceed the limit, and some not sharp, of matrices m × n, m ≥ n, one or more.

    `starts` are those of a similar matrix each. `sharp` is the residual ‖AV − Uσ‖_F at which subspaces need
    no more work; `thorough` looks for what is missing in them first.
    """
    n, expected = A.shape[-1], max(start.rank for start in starts)
    if n > DIRECT and expected < n // SHARE:
        sought = Sought(lambda sigma: int((sigma > limit).sum()), lambda _: sharp, thorough)
        if found := leading_subspaces(A, sought, starts):
            return found
    # The Gram matrix squares the condition number; one product from either side makes up for that.
    return [
        ritz(own, eigenpairs_above(gram_matrix(own), limit**2, start.rank).vectors)
        for own, start in zip(each(A), starts, strict=True)
    ]


def largest(A: Tensor, count: int, sharp: float, starts: Sequence[Factors]) -> list[Factors]:
    """Return the largest triplets, so many or all there are, of m × n matrices, m ≥ n, one or several.

    `starts` are some of theirs. `sharp` is the residual at which subspaces need no more work, in units of
    their smallest singular value.
    """
    n = A.shape[-1]
    count = min(count, n)
    if n > DIRECT and count < n // SHARE:
        sought = Sought(lambda _: count, lambda least: sharp * least, clear=CLEAR, width=count + spare(count))
        if found := leading_subspaces(A, sought, starts):
            return [part.truncated(count) for part in found]
    return [ritz(own, leading_eigenpairs(gram_matrix(own), count).vectors) for own in each(A)]


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
