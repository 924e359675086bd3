"""Proving that task vectors are near the optimum, by an upper bound on the duality gap.

The proof does not depend on the solver that found them (docs/mathematics.md, fact 5).
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy.linalg import blas, lapack

from tasks.merging.lore.algebra import Factors, Tensor, add_up, inner
from tasks.merging.lore.duality_gap import DualityGap
from tasks.merging.lore.penalty import Penalty

ROWS = 2**10
"""Rows of Y that are computed at a time, so that Y is never held whole."""


def certify(
    B: Tensor,
    energy: float,
    deltas: Sequence[Factors],
    penalty: Penalty,
    thresholds: Sequence[float],
    tolerance: float,
    free_base: bool = True,
) -> float | None:
    """Return a proven bound on the relative duality gap, within the tolerance; None where there is no proof.

    `B` is N × m × n, `energy` Σ‖B_i‖². Without `free_base` (N = 1) z is fixed at 0, not minimised over.
    """
    total = add_up(deltas)
    duality = _duality_gap(B, energy, deltas, total, penalty, thresholds, free_base)
    # Instead of computing ‖Y_i‖_2: the largest norm that the tolerance allows, and a proof that it is kept.
    excess = duality.allowance(tolerance)
    # Relative rounding of Y and YᵀY: the error of a sum of products grows like the root of their number.
    rounding = 8 * torch.finfo(B.dtype).eps * math.sqrt(max(B.shape[1:]))
    if excess <= rounding * max(thresholds):
        return None
    for b, delta, t in zip(B, deltas, thresholds, strict=True):
        low_rank = [delta._replace(sigma=-delta.sigma)]  # Y_i = B_i − δ_i + S/N
        if free_base:
            low_rank.append(total._replace(sigma=total.sigma / len(deltas)))
        if not _bounded(b, add_up(low_rank), (t + excess) * (1 - rounding)):
            return None
    return duality.gap(excess)


def _duality_gap(
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
    # With z fixed at 0 the residual is B − δ: the term ‖S‖²/N of the refreshed base drops out.
    pulled = inner(total, total) / len(deltas) if free_base else 0.0
    sigmas = [delta.sigma for delta in deltas]
    return DualityGap.of(penalty, sigmas, thresholds, aligned, pulled, energy)


def _bounded(b: Tensor, update: Factors, limit: float) -> bool:
    """Tell whether ‖Y‖_2 < limit for Y = b + update: exactly then limit²·I − YᵀY has a Cholesky factor.

    A Cholesky factorisation is the cheapest way to a rigorous bound: n³/3 operations, where singular values
    take many times that. One n × n matrix is the only large array: Y is made ROWS rows at a time, and the
    difference is factored in place.
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
    # BLAS and LAPACK work in place on column-major arrays only; a C-ordered one would be copied every time
    rest = np.zeros((n, n), b.numpy().dtype, order="F")
    np.fill_diagonal(rest, limit**2)
    for Y in rows:
        rest = syrk(-1.0, Y.numpy().T, beta=1.0, c=rest, overwrite_c=True)
    # clean=False: the other triangle is neither read nor zeroed
    return bool(potrf(rest, clean=False, overwrite_a=True)[1] == 0)
