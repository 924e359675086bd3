"""The leading singular triplets of matrices: all whose singular value exceeds a limit.

Up to DIRECT columns from the Gram matrix's leading eigenpairs, beyond from subspaces that are sharpened by
Chebyshev polynomials of AᵀA (Zhou, Saad, Tiago and Chelikowsky 2006): products only, and the subspace of the
pass before is where they start. Matrices, A, are one, m × n, or several, N × m × n: then all subspaces are as
wide as the widest, and are sharpened until the last is sharp.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from tasks.merging.lore.algebra import (
    Factors,
    MatrixLike,
    Tensor,
    each,
    gaussian,
    gram_matrix,
    times,
    transposed,
)
from tasks.merging.lore.columns import SPARE, orthonormal_basis, spare, thin_svd
from tasks.merging.lore.lapack import eigenpairs_above
from tasks.merging.lore.penalty import Values, values

DIRECT = 400
"""Columns up to which leading eigenpairs cost less than sharpening subspaces."""
SHARE = 8
"""Beyond this fraction of the columns eigenpairs cost less, too."""
DEGREE = 2
"""Of the polynomial: products with AᵀA between two orthogonalisations."""
STRONG, STEEPEST = 2, 16
"""Times what a polynomial is to suppress: what is kept out of it, and what may be in it."""
ROUNDS = 12
"""Polynomials before a full decomposition takes over; one or two are usual."""


class Sought(NamedTuple):
    """What a subspace has to hold, and how sharply."""

    limit: float
    """What they exceed."""
    active: float
    """What those exceed that have to be sharp."""
    sharp: float
    """The residual that these may have."""
    blunt: float
    """The residual that all may have."""
    thorough: bool = False
    """Whether to look for what is missing first."""

    def is_met(self, count: int, sigma: Values, residual: Values) -> bool:
        """Tell whether so many triplets are sharp, given all singular values and residuals."""
        # the product that made V' from V took off that much, if what is missing is smaller than the last
        left = residual[:count] * (float(sigma[max(count, 1) - 1]) / sigma[:count])
        active = int((sigma[:count] > self.active).sum())
        return bool(np.linalg.norm(left[:active]) <= self.sharp and np.linalg.norm(left) <= self.blunt)


def triplets_above(A: MatrixLike, sought: Sought, starts: Sequence[Factors]) -> list[Factors]:
    """Return the triplets that exceed the limit, and some not sharp, of matrices m × n, m ≥ n, one or more.

    `starts` are those of a similar matrix each.
    """
    n, expected = A.shape[-1], max(start.rank for start in starts)
    if n > DIRECT and expected < n // SHARE and (found := leading_subspaces(A, sought, starts)):
        return found
    # The Gram matrix squares the condition number; one product from either side makes up for that.
    return [
        ritz(own, eigenpairs_above(gram_matrix(own), sought.limit**2, start.rank).vectors)
        for own, start in zip(each(A), starts, strict=True)
    ]


def leading_subspaces(A: MatrixLike, sought: Sought, starts: Sequence[Factors]) -> list[Factors] | None:
    """Return what is sought, and some triplets that are not sharp, of a matrix m × n or of each of N.

    `starts` are triplets of a similar matrix each. None where a subspace would grow too large, or is not
    sharp after ROUNDS.
    """
    n = A.shape[-1]
    found, left = sharpened(A, *_started(A, starts))
    for done in range(ROUNDS):
        sigmas, residuals = _listed(found.sigma, left)
        counts = [int((sigma > sought.limit).sum()) for sigma in sigmas]
        most, width = max(counts), found.sigma.shape[-1]
        if width < most + spare(most) // 2:
            width = 2 * most + spare(most)
            if width > n // 2:
                return None
        elif done >= sought.thorough and all(map(sought.is_met, counts, sigmas, residuals)):
            parts = [found] if len(A.shape) == 2 else zip(*found, strict=True)
            return [
                Factors(*part).truncated(count + 3 * spare(count) // 2)
                for count, part in zip(counts, parts, strict=True)
            ]
        # strong triplets are sharp already, and stay; rounding would carry them into all other columns
        strong = [int((sigma > STRONG * sigma[-1]).sum()) for sigma in sigmas]
        found, left = sharpened(A, filtered(A, found.V, strong, found.sigma[..., -1:]), width)
    return None


def _started(A: MatrixLike, starts: Sequence[Factors]) -> tuple[Tensor, int]:
    """Return subspaces to start from, and how wide they have to be."""
    rank = max(start.rank for start in starts)
    basis = _side_by_side([widened(start.V, rank) for start in starts], A)
    ends = [_ends(start.sigma) for start in starts]
    # what was sharp in the matrix before is so no more: the polynomial takes it along, unless too steep
    gentle = [largest < STEEPEST * least for largest, least in torch.stack(ends).tolist()]
    if any(gentle):
        along = filtered(A, basis, [0] * len(starts), _side_by_side(ends, A)[..., 1:])
        mixed = torch.tensor(gentle, device=basis.device)[:, None, None]
        basis = along if all(gentle) else torch.where(mixed, along, basis)
    return basis, max(rank, SPARE)


def _side_by_side(parts: Sequence[Tensor], A: MatrixLike) -> Tensor:
    """Return what is known of a matrix, or of each of several."""
    return parts[0] if len(A.shape) == 2 else torch.stack(list(parts))


def _listed(*numbers: Tensor) -> list[list[Values]]:
    """Return numbers of a matrix, or of each of several, as numpy arrays of each."""
    return [list(own) for own in values(torch.stack(numbers)).reshape(len(numbers), -1, numbers[0].shape[-1])]


def _ends(sigma: Tensor) -> Tensor:
    """Return the largest and the smallest; 0 where one alone tells nothing of what is below."""
    return sigma[[0, -1]] if len(sigma) > 1 else sigma.new_tensor([1.0, 0.0])


def ritz(A: MatrixLike, V: Tensor) -> Factors:
    """Return Ritz triplets from a subspace V (n × k), by one product from either side."""
    return sharpened(A, V, V.shape[-1])[0]


def sharpened(A: MatrixLike, V: Tensor, width: int) -> tuple[Factors, Tensor]:
    """Return Ritz triplets U, σ, V' from a subspace V, and the residuals AᵀU − VVᵀAᵀU, column by column.

    V is made as wide as is said; both may be several, as A. V' is the span of AᵀU, and nearer than V: the
    residuals of the triplets are no larger than these.
    """
    V = widened(V, width)
    U, own = orthonormal_basis(times(A, V))
    image = times(transposed(A), U)
    right, sigma, Zt = thin_svd(image)  # AᵀU = V'ΣZᵀ: A's left vectors are UZ
    left = torch.linalg.vector_norm((image - V @ own.mT) @ Zt.mT, dim=-2)
    return Factors(U @ Zt.mT, sigma, right), left


def widened(V: Tensor, width: int) -> Tensor:
    """Return V, … × n × k, with random columns added, orthonormal."""
    n, k = V.shape[-2:]
    if k >= width:
        return V
    more = gaussian(n, width - k, like=V).expand(*V.shape[:-2], n, width - k)
    return orthonormal_basis(torch.cat([V, more], -1))[0]


def filtered(A: MatrixLike, V: Tensor, strong: Sequence[int], below: Tensor) -> Tensor:
    """Return orthonormal bases of p(AᵀA)V, … × n × k, but for the first columns, which are strong and stay.

    p is the Chebyshev polynomial that is small up to σ = `below`, … × 1.
    """
    turned, few, many = transposed(A), min(strong), max(strong)
    half = (below**2 / 2)[..., None]  # AᵀA/half − 1 takes what is below to [−1, 1], where |p| ≤ 1
    apart, stays = V[..., :many], None
    if few < many:  # what one matrix has more of is filtered in vain, and put back
        stays = torch.arange(many, device=V.device) < torch.tensor(strong, device=V.device)[:, None]
        apart = apart * stays[:, None]

    def square(X: Tensor) -> Tensor:
        Y = times(turned, times(A, X)) / half
        return Y - apart @ (apart.mT @ Y) - X

    before, here = V[..., few:], square(V[..., few:])
    for _ in range(DEGREE - 1):
        before, here = here, 2 * square(here) - before
    if stays is not None:
        own = here[..., : many - few]
        own.copy_(torch.where(stays[:, None, few:], V[..., few:many], own))
    return orthonormal_basis(torch.cat([V[..., :few], here], -1))[0]
