"""The proof that task vectors are near the optimum: a bound on the duality gap, whoever computed them."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy.linalg import blas, lapack

from tasks.merging.lore.algebra import Factors, Tensor, add_up, inner
from tasks.merging.lore.duality_gap import DualityGap
from tasks.merging.lore.penalty import Penalty

ROWS = 2**10
"""Of a matrix that is made and used up at once."""


def certify(
    B: Tensor,
    energy: float,
    deltas: Sequence[Factors],
    penalty: Penalty,
    thresholds: Sequence[float],
    tolerance: float,
    free_base: bool = True,
) -> float | None:
    """Return a relative duality gap within the tolerance that is proven, or None.

    `B` is N × m × n, `energy` Σ‖B_i‖². Without `free_base`, z = 0 is given instead of looked for (N = 1).
    """
    total = add_up(deltas)
    accounts = _accounts(B, energy, deltas, total, penalty, thresholds, free_base)
    excess = accounts.allowance(tolerance)
    rounding = 8 * torch.finfo(B.dtype).eps * math.sqrt(max(B.shape[1:]))  # products of rows add up
    if excess <= rounding * max(thresholds):
        return None
    for b, delta, t in zip(B, deltas, thresholds, strict=True):
        low_rank = [delta._replace(sigma=-delta.sigma)]
        if free_base:
            low_rank.append(total._replace(sigma=total.sigma / len(deltas)))
        if not _bounded(b, add_up(low_rank), (t + excess) * (1 - rounding)):
            return None
    return accounts.gap(excess)


def _accounts(
    B: Tensor,
    energy: float,
    deltas: Sequence[Factors],
    total: Factors,
    penalty: Penalty,
    thresholds: Sequence[float],
    free_base: bool,
) -> DualityGap:
    aligned = sum(
        float(((delta.U.T @ b @ delta.V).diagonal().double() * delta.sigma.double()).sum())
        for b, delta in zip(B, deltas, strict=True)
    )
    pulled = inner(total, total) / len(deltas) if free_base else 0.0
    sigmas = [delta.sigma for delta in deltas]
    return DualityGap.of(penalty, sigmas, thresholds, aligned, pulled, energy)


def _bounded(b: Tensor, update: Factors, limit: float) -> bool:
    """Tell whether ‖Y‖_2 ≤ limit for Y = b + update: limit²·I − YᵀY then has a Cholesky factor.

    No decomposition is cheaper. Y is made some rows at a time, and what it is subtracted from is factored in
    place: a square matrix beside the checkpoints is all that there is room for.
    """
    n, left = b.shape[1], update.U * update.sigma
    rows = (
        torch.addmm(b[first : first + ROWS], left[first : first + ROWS], update.V.T)
        for first in range(0, len(b), ROWS)
    )
    if b.device.type != "cpu":
        G = limit**2 * torch.eye(n, dtype=b.dtype, device=b.device) - sum(Y.T @ Y for Y in rows)
        return int(torch.linalg.cholesky_ex(G).info) == 0
    syrk, potrf = (blas.ssyrk, lapack.spotrf) if b.dtype == torch.float32 else (blas.dsyrk, lapack.dpotrf)
    rest = np.zeros((n, n), b.numpy().dtype, order="F")
    np.fill_diagonal(rest, limit**2)
    for Y in rows:
        rest = syrk(-1.0, Y.numpy().T, beta=1.0, c=rest, overwrite_c=True)
    return bool(potrf(rest, clean=False, overwrite_a=True)[1] == 0)
