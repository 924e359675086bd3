"""What every solver returns and raises."""

from typing import NamedTuple

from tasks.base.errors import LorelineError
from tasks.merging.lore.algebra import Factors
from tasks.merging.lore.penalty import Penalty


class NotConverged(LorelineError):
    """No solver reached the tolerance."""


class Unproven(Exception):
    """The tolerance cannot be proven in float32 or by subspaces; a more expensive solver may prove it."""


class Solution(NamedTuple):
    """The task vectors of one matrix, with the proven bound on their duality gap."""

    deltas: list[Factors]
    """δ_i"""
    spectra: list[list[float]]
    """Singular values of θ_i − θ_0 that the solver saw, descending: those above the threshold, some below."""
    penalty: Penalty
    """With μ in the unit of singular values."""
    thresholds: list[float]
    """What was subtracted from the singular values of each matrix."""
    edge: float
    """Noise edge of the deviations."""
    passes: int
    gap: float
    """Upper bound on the relative distance of the objective from its minimum."""
    solver: str
    """How it was found: symmetric, zero, anchored, tall, subspace, dense or passes."""
