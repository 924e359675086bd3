"""What every solver is asked for, returns and raises."""

from typing import NamedTuple

from tasks.base.errors import LorelineError
from tasks.merging.lore.algebra import Factors
from tasks.merging.lore.penalty import Penalty


class NotConverged(LorelineError):
    """No solver reached the tolerance."""


class Unproven(Exception):
    """The tolerance cannot be proven in float32; float64 may prove it."""


class Near(NamedTuple):
    """A tolerance: how far θ_0 may be from that of the minimum, ‖·‖_F over the whole matrix."""

    distance: float


class Solution(NamedTuple):
    """The task vectors of one matrix, with what is proven of them."""

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
    error: float
    """Upper bound on ‖θ_0 − θ_0*‖_F for every minimiser θ_0*; infinite where there is none."""
    solver: str
    """How it was found: symmetric, zero, anchored, tall, newton, dense or passes."""
