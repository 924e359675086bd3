"""What LoRE measured, matrix by matrix, and whether what the checkpoints differ by is low-rank there."""

from collections.abc import Mapping
from statistics import fmean
from typing import Literal

from tasks.merging.program import Facts

Doubt = Literal["dense", "noise", "faint"]
"""Why the low-rank assumption does not hold in a matrix."""

NOISE = 1.05
"""Up to so many noise edges a singular value is noise: the edge of a finite matrix is not sharp."""
FAINT = 0.1
"""Below this share of the deviations' energy the low-rank part is not what the checkpoints differ by."""


def decomposed(tensors: Mapping[str, Facts]) -> dict[str, Facts]:
    """Return the matrices of a merge.json that LoRE decomposed; the rest was averaged."""
    return {name: facts for name, facts in tensors.items() if "active" in facts}


def active_rank(facts: Facts) -> float:
    """Return the mean number of singular values above μ of a task vector."""
    return fmean(facts["active"])


def rank_share(facts: Facts) -> float:
    """Return the active rank over min(m, n)."""
    return active_rank(facts) / min(map(float, facts["shape"]))


def doubt(facts: Facts) -> Doubt | None:
    """Say why the low-rank assumption does not hold in a matrix m × n; None where nothing speaks against it.

    dense: factors of the active rank r hold r(m + n) numbers, no fewer than the mn of the matrix.
    noise: no singular value rises above the noise edge.
    faint: something does rise above μ, but holds less than `FAINT` of the deviations' energy.
    """
    m, n = facts["shape"]
    if active_rank(facts) * (m + n) >= m * n:
        return "dense"
    if _largest(facts) <= NOISE * facts["edge"]:
        return "noise"
    if any(facts["active"]) and facts["explained"] < FAINT:
        return "faint"
    return None


def _largest(facts: Facts) -> float:
    """Return σ_1 over all checkpoints; what the solver did not look at lies below μ."""
    return max((sigma[0] for sigma in facts["spectra"] if sigma), default=float(facts["mu"]))
