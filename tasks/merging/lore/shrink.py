"""The proximal map of a whole matrix, by a full decomposition."""

from typing import NamedTuple

import torch

from tasks.merging.lore.algebra import Factors, Tensor, gram_matrix
from tasks.merging.lore.penalty import Penalty, values
from tasks.merging.lore.problem import Unproven

GRAM_SHARE = 0.1
"""Share of the tolerance that a Gram matrix may cost: it squares the condition number.

Of its root in float32, where what is found has to be proven: errors of δ count squared.
"""


class Shrunk(NamedTuple):
    """The proximal map of a matrix."""

    delta: Factors
    sigma: list[float]
    """Of the matrix itself."""
    threshold: float


def singular(A: Tensor) -> Tensor:
    """Return the singular values, descending, exact to √ε · σ_1."""
    sigma: Tensor = torch.linalg.eigvalsh(gram_matrix(A)).flip(-1).clamp(min=0).sqrt()
    return sigma


def shrink(A: Tensor, penalty: Penalty, tolerance: float) -> Shrunk:
    """Return the proximal map of A (m ≥ n), its singular values and the threshold taken off them.

    Through the Gram matrix where that is exact enough, else by a singular value decomposition.
    """
    squares, V = torch.linalg.eigh(gram_matrix(A))
    sigma, V = squares.flip(-1).clamp(min=0).sqrt(), V.flip(-1)
    t = penalty.threshold(values(sigma))
    U = None
    lost = torch.finfo(A.dtype).eps * float(sigma[0]) ** 2
    if A.dtype == torch.float32 and lost > GRAM_SHARE * tolerance**0.5 * t**2:
        raise Unproven
    if A.dtype == torch.float64 and lost > GRAM_SHARE * tolerance * t**2:
        U, sigma, Vt = torch.linalg.svd(A, full_matrices=False)
        V = Vt.T
        t = penalty.threshold(values(sigma))
    r = int((sigma > t).sum())
    left = U[:, :r] if U is not None else A @ V[:, :r] / sigma[:r]
    return Shrunk(Factors(left, sigma[:r] - t, V[:, :r]), values(sigma).tolist(), t)
