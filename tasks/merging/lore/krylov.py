"""The leading singular triplets of N matrices, by block Krylov subspaces that grow until they hold them all.

At equal cost far more accurate than subspace iteration (Musco and Musco 2015, arXiv 1504.05477).
"""

import math
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import torch

from tasks.merging.lore.algebra import Factors, Tensor, gaussian
from tasks.merging.lore.penalty import Deviations, Penalty, Scale, values
from tasks.merging.lore.problem import Unproven
from tasks.merging.lore.ritz import Triplets, times, triplets

FIRST_CHECK = 4
"""Blocks before the singular values are first looked at: fewer tell too little to decide on."""
RANK_SHARE = 6
"""Beyond min(m, n) / 6 active singular values a full decomposition is faster."""


class Start(NamedTuple):
    """What the first pass starts from."""

    triplets: Triplets
    penalty: Penalty
    edge: float


def leading_triplets(B: Tensor, energy: float, scale: Scale, tolerance: float) -> Start | None:
    """Find every singular triplet above the threshold; None where there are too many of them.

    `B` is N × m × n, `energy` Σ‖B_i‖². The noise edge, hence μ, is exact to about the tolerance.
    """
    small = min(B.shape[1:])
    # Compared with the last change of the edge; what is still missing is far smaller, about the tolerance.
    settled = 0.3 * math.sqrt(tolerance)
    before = math.inf
    for blocks, (U, W) in enumerate(_growing(B, None, None), 1):
        if blocks < FIRST_CHECK:
            continue
        # W = QR: the singular values of BᵀU are those of the small R, which the CPU decomposes fastest
        Q, R = torch.linalg.qr(W)
        found = Deviations([values(sigma) for sigma in torch.linalg.svdvals(R.cpu())], energy)
        penalty, edge = scale.penalty(found)
        active = max(int((sigma > penalty.threshold(sigma)).sum()) for sigma in found.spectra)
        if active > small // RANK_SHARE:
            return None
        # half the columns spare: the last Ritz values of a subspace are poor, the first ones good
        if active <= U.shape[-1] // 2 and abs(edge - before) <= settled * edge:
            return Start(triplets(U, Q, R), penalty, edge)
        before = edge
    return None


def enlarged(B: Tensor, found: Triplets, z: Factors, blocks: int) -> Triplets:
    """Return triplets of B_i − z from the known subspaces, grown by some blocks.

    Raises Unproven where the subspaces may not grow further.
    """
    grown = list(islice(_growing(B, found.U, z), blocks))
    if not grown:
        raise Unproven
    U, W = grown[-1]
    return triplets(U, *torch.linalg.qr(W))


def _growing(B: Tensor, U: Tensor | None, z: Factors | None) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield orthonormal U (N × m × k), one block larger each time, and W = (B − z)ᵀU (N × n × k)."""
    N, m, n = B.shape
    # wide enough for fast products, narrow enough that a small rank does not pay for a large block
    width = max(4, min(32, min(m, n) // 32))
    z_transposed = None if z is None else z.transposed
    block = gaussian(N, n, width, like=B)
    U = B.new_empty(N, m, 0) if U is None else U
    W = times(B.mT, U, z_transposed)
    # beyond half of the columns a full decomposition is cheaper
    while U.shape[-1] + width <= min(m, n) // 2:
        new = _orthonormal(times(B, block, z), U)
        block = times(B.mT, new, z_transposed)
        U, W = torch.cat([U, new], -1), torch.cat([W, block], -1)
        yield U, W


def _orthonormal(Y: Tensor, U: Tensor) -> Tensor:
    """Return an orthonormal basis of the part of Y's columns that is orthogonal to U."""
    # Twice: after one projection a small remainder is mostly rounding, which is not orthogonal to U.
    for _ in range(2):
        Y = torch.linalg.qr(Y - U @ (U.mT @ Y)).Q
    return Y
