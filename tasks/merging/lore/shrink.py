"""The proximal map of the penalty for a whole matrix, by a full decomposition."""

from typing import NamedTuple

import torch

from tasks.merging.lore.algebra import Factors, Tensor, gram_matrix
from tasks.merging.lore.penalty import Penalty, values

GRAM_SHARE = 0.1
"""Share of the tolerance that the Gram matrix's rounding may cost: it squares the condition number."""


class Shrunk(NamedTuple):
    """The result of the proximal map of a matrix A."""

    delta: Factors
    sigma: list[float]
    """Singular values of A, descending."""
    threshold: float


def shrink(A: Tensor, penalty: Penalty, tolerance: float) -> Shrunk:
    """Return the proximal map of A (m ≥ n, float64), its singular values and what was subtracted from them.

    By the Gram matrix where that is exact enough, else by a singular value decomposition.
    """
    squares, V = torch.linalg.eigh(gram_matrix(A))
    sigma, V = squares.flip(-1).clamp(min=0).sqrt(), V.flip(-1)
    t = penalty.threshold(values(sigma))
    U = None
    # Eigenvalues σ² are off by about ε σ_1²; what matters are those near t² and above.
    lost = torch.finfo(A.dtype).eps * float(sigma[0]) ** 2
    if lost > GRAM_SHARE * tolerance * t**2:
        U, sigma, Vt = torch.linalg.svd(A, full_matrices=False)
        V = Vt.T
        t = penalty.threshold(values(sigma))
    r = int((sigma > t).sum())
    # σ > t here, so the division is safe
    left = U[:, :r] if U is not None else A @ V[:, :r] / sigma[:r]
    return Shrunk(Factors(left, sigma[:r] - t, V[:, :r]), values(sigma).tolist(), t)
