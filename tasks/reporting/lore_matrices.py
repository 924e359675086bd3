"""What LoRE measured, matrix by matrix, and whether what the checkpoints differ by is low-rank there."""

from collections.abc import Mapping
from statistics import fmean
from typing import Literal

from tasks.base.measures import LoreMeasures, TensorMeasures

Doubt = Literal["dense", "noise", "faint"]
"""Why the low-rank assumption does not hold in a matrix."""

NOISE = 1.05
"""Noise edges up to which a singular value counts as noise: a finite matrix has no sharp edge."""
FAINT = 0.1
"""Below this share of the deviations' energy the low-rank part is not what the checkpoints differ by."""


def decomposed(tensors: Mapping[str, TensorMeasures]) -> dict[str, LoreMeasures]:
    """Return the matrices of a merge.json that LoRE decomposed; the rest was averaged."""
    return {name: own.method for name, own in tensors.items() if isinstance(own.method, LoreMeasures)}


def active_rank(matrix: LoreMeasures) -> float:
    """Return the mean number of singular values above μ of a task vector."""
    return fmean(matrix.active)


def rank_share(matrix: LoreMeasures) -> float:
    """Return the active rank over min(m, n)."""
    return active_rank(matrix) / min(matrix.shape)


def doubt(matrix: LoreMeasures) -> Doubt | None:
    """Say why the low-rank assumption does not hold in a matrix m × n; None where nothing speaks against it.

    dense: factors of the active rank r hold r(m + n) numbers, no fewer than the mn of the matrix.
    noise: no singular value rises above the noise edge.
    faint: something does rise above μ, but holds less than `FAINT` of the deviations' energy.
    """
    m, n = matrix.shape
    if active_rank(matrix) * (m + n) >= m * n:
        return "dense"
    if _largest(matrix) <= NOISE * matrix.edge:
        return "noise"
    if any(matrix.active) and matrix.explained < FAINT:
        return "faint"
    return None


def _largest(matrix: LoreMeasures) -> float:
    """Return σ_1 over all checkpoints; what the solver did not look at lies below μ."""
    return max((sigma[0] for sigma in matrix.spectra if sigma), default=matrix.threshold)
