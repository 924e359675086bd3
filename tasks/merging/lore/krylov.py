"""The largest singular triplets of matrices of which nothing is known yet: from Krylov spaces.

Block Golub-Kahan-Lanczos bidiagonalisation (Golub, Luk and Overton 1981), each block made orthogonal to all
before it. Nothing that was multiplied is thrown away, so that a third as many columns are multiplied as to
sharpen a random subspace; where a good one is known, that takes less (triplets.py). Matrices are one, m × n,
or several, N × m × n, in whose spaces there are equally many columns.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from tasks.merging.lore.algebra import Factors, Tensor, gaussian, product
from tasks.merging.lore.columns import orthonormal_basis, spare
from tasks.merging.lore.penalty import Values, values

BLOCK, BLOCK_ON_GPU = 16, 64
"""Columns multiplied at a time; more where calls take the time."""
FIRST_LOOK = 1.75
"""Columns of the space for each triplet expected, from where on it is worth a look at what is there."""
LARGEST_SPACE = 3
"""Columns of a matrix for each of the space, at least: else a Gram matrix costs less."""
EARLY, AGAIN = 5, 2
"""Blocks from where on it is worth a look whether spikes stand out of noise, one of 1.1 edges among them; and
blocks until the next."""
STANDS_OUT = 0.1
"""Residual of a spike, in units of its singular value: among many that are hardly smaller none gets there."""
CLEAR = 1.2
"""The last ones may lie among many that are hardly smaller, and get sharp late: those within this factor of
some columns beyond."""


class Largest(NamedTuple):
    """How many triplets, and how sharp."""

    most: int
    sharp: float
    """The residual ‖AᵀU − VΣ‖_F of those that clearly exceed what is beyond, in units of that."""
    close: Callable[[Values, float], float] | None = None
    """The residual that the last may have, in units of its singular value, given all of these and ‖A‖²."""
    floor: float = 0.0
    """Of those that do not exceed it one is enough."""
    expected: int | None = None
    """About how many that leaves."""
    noise: Callable[[Values, float], float] | None = None
    """What noise does not exceed, given these and ‖A‖²: where all that do are close, no more is wanted."""

    def wanted(self, sigma: Values) -> int:
        """Return how many triplets that are."""
        return min(self.most, int((sigma > self.floor).sum()) + 1)

    def is_met(self, sigma: Values, residual: Values, energy: float) -> bool:
        """Tell whether the triplets of a space, descending, are these; `energy` is ‖A‖²."""
        count = self.wanted(sigma)
        beyond = count + spare(count)
        if len(sigma) < beyond:
            return False
        last, least = float(sigma[count - 1]), float(sigma[beyond - 1])
        clear = int((sigma[:count] > CLEAR * least).sum())
        return bool(
            np.linalg.norm(residual[:clear]) <= self.sharp * least
            and (not self.close or residual[count - 1] <= self.close(sigma[:count], energy) * last)
        )

    def spikes(self, sigma: Values, energy: float) -> int:
        """Return how many noise does not explain."""
        assert self.noise is not None
        return int((sigma > self.noise(sigma, energy)).sum())

    def stand_out(self, sigma: Values, residual: Values, energy: float) -> bool:
        """Tell whether all that noise does not explain are close, and some of what it explains is known."""
        count = self.spikes(sigma, energy)
        beyond = count + 1 + spare(count + 1)
        return len(sigma) >= beyond and bool((residual[:count] <= STANDS_OUT * sigma[:count]).all())


def in_krylov_space(A: Tensor, squares: Sequence[float], sought: Largest) -> list[Factors] | None:
    """Return the largest triplets, and more; None where the space would be too large; m ≥ n.

    `squares` are ‖A‖² of each. Of spikes that stand out of noise they are those and one more.
    """
    n, width = A.shape[-1], BLOCK_ON_GPU if A.is_cuda else BLOCK
    enough = FIRST_LOOK * (sought.expected or sought.most)
    block, _ = orthonormal_basis(gaussian(n, width, like=A).expand(*A.shape[:-2], n, width))
    U, V, T = A.new_zeros(*A.shape[:-1], 0), block, A.new_zeros(*A.shape[:-2], 0, 0)
    image = product(A, block)
    # where nothing is left, noise as small as rounding gives a basis any direction but the known ones
    rounding = max(float(torch.linalg.vector_norm(image)), torch.finfo(A.dtype).tiny ** 0.5)
    rounding *= torch.finfo(A.dtype).eps
    early = range(EARLY * width, math.ceil(enough), AGAIN * width) if sought.noise else ()
    while True:
        # AV = UT, T triangular; AᵀU = VTᵀ and in the last columns QR besides
        block, inside, R = _orthogonal(image, U, rounding)
        U, T = torch.cat([U, block], -1), _bordered(T, inside, R)
        block, _, R = _orthogonal(product(A.mT, block), V, rounding)
        last = T.shape[-1] >= enough
        if last or T.shape[-1] in early:
            P, sigma, Qt = torch.linalg.svd(T.cpu())
            residual = torch.linalg.vector_norm(R.cpu() @ P[..., -width:, :], dim=-2)
            numbers = (values(x).reshape(-1, sigma.shape[-1]) for x in (sigma, residual))
            suffice = sought.is_met if last else sought.stand_out
            if all(suffice(*own) for own in zip(*numbers, squares, strict=True)):
                found = Factors(U @ P.to(U.device), sigma.to(U.device), V @ Qt.mT.to(V.device))
                parts = [found] if A.ndim == 2 else [Factors(*own) for own in zip(*found, strict=True)]
                if last:
                    return parts
                return [
                    part.truncated(sought.spikes(values(part.sigma), square) + 1)
                    for part, square in zip(parts, squares, strict=True)
                ]
        if V.shape[-1] + width > n // LARGEST_SPACE:
            return None
        V, image = torch.cat([V, block], -1), product(A, block)


def _orthogonal(X: Tensor, Q: Tensor, noise: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return Q', C and R with X = QC + Q'R but for noise of that norm, Q' orthonormal and orthogonal to Q."""
    rows, columns = X.shape[-2:]
    other = gaussian(rows, columns, like=X).roll(Q.shape[-1], 0)  # each time another
    C = Q.mT @ X
    own, R = orthonormal_basis(X - Q @ C + other * (noise / (rows * columns) ** 0.5))
    more = Q.mT @ own  # rounding, which is no small part of columns that have little of their own
    own, C = own - Q @ more, C + more @ R
    if float(torch.linalg.vector_norm(more)) > torch.finfo(X.dtype).eps ** 0.5:
        own, last = orthonormal_basis(own)
        R = last @ R
    return own, C, R


def _bordered(T: Tensor, above: Tensor, corner: Tensor) -> Tensor:
    """Return an upper triangular matrix with more columns."""
    below = torch.nn.functional.pad(corner, (T.shape[-1], 0))
    return torch.cat([torch.cat([T, above], -1), below], -2)
