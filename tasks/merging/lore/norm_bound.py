"""Proving that no singular value of a matrix exceeds a level."""

import math

import torch

from tasks.merging.lore.algebra import Factors, MatrixLike, gram_matrix, rows_without
from tasks.merging.lore.lapack import PackedTriangle


def bounded(A: MatrixLike, found: Factors, most: float) -> bool:
    """Tell whether ‖W‖_2 < `most` for W = A − UΣVᵀ: exactly then most²·1 − WᵀW has a Cholesky factor.

    A Cholesky factorisation is the cheapest way to a rigorous bound: n³/3 operations, where singular values
    take many times that. Half an n × n matrix is the only large array: W is made some rows at a time, and the
    difference is factored in place.
    """
    (m, n), own = A.shape, found.U
    # the error of a sum of products grows like the root of their number
    most *= 1 - 8 * torch.finfo(own.dtype).eps * math.sqrt(m)
    blocks = rows_without(A, found)
    if own.is_cuda:
        G = most**2 * torch.eye(n, dtype=own.dtype, device=own.device) - sum(map(gram_matrix, blocks))
        return int(torch.linalg.cholesky_ex(G).info) == 0
    rest = PackedTriangle(n, most**2, own)
    for W in blocks:
        rest.subtract_product(W)
    return rest.factor()
