"""What a solver takes and what it gives."""

from typing import NamedTuple

from tasks.base.errors import LorelineError
from tasks.merging.lore.algebra import Factors
from tasks.merging.lore.penalty import Penalty


class NotConverged(LorelineError):
    """No solver reached the tolerance."""


class Unproven(Exception):
    """Subspaces, or this precision, are too coarse for a proof; something more expensive is not."""


class Solution(NamedTuple):
    """The task vectors of one matrix, and what vouches for them."""

    deltas: list[Factors]
    """δ_i"""
    spectra: list[list[float]]
    """Singular values of θ_i − θ_0 that the solver saw, descending: those above the threshold, some below."""
    penalty: Penalty
    """With μ as a singular value."""
    thresholds: list[float]
    """What was taken off the singular values of each."""
    edge: float
    """Noise edge of the deviations."""
    passes: int
    gap: float
    """Upper bound on the relative distance of the objective from its minimum."""
    solver: str
