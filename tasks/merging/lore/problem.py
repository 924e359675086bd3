"""What every solver is asked for, returns and raises."""

import math
from typing import NamedTuple

from tasks.base.errors import LorelineError
from tasks.merging.lore.algebra import Factors, Norms, Spanned
from tasks.merging.lore.penalty import Penalty, values

GAP_INSTEAD = 1e-4
"""Relative duality gap that has to do where the minimiser is hardly unique, and no distance can be proven."""

FLAT = 0.02
"""Curvature below which the minimiser is hardly unique."""


COARSE = 1.5
"""Deviations that a tolerance is as large as where weights have few digits."""


class NotConverged(LorelineError):
    """No solver reached the tolerance."""


class Unproven(Exception):
    """The tolerance cannot be proven in float32; float64 may prove it."""


class Near(NamedTuple):
    """A tolerance: how far θ_0 may be from that of the minimum, ‖·‖_F over the whole matrix."""

    distance: float


def is_coarse(tolerance: float | Near, total: float, count: int) -> bool:
    """Tell whether a tolerance is so large that it may be proven anywhere, `total` = Σ‖B_i‖²."""
    return isinstance(tolerance, Near) and tolerance.distance >= COARSE * math.sqrt(total / count)


class Start(NamedTuple):
    """What the first pass starts from."""

    penalty: Penalty
    edge: float
    """Noise edge of the deviations."""
    largest: float
    """σ_1 of the deviations."""
    total: float
    """Σ‖B_i‖²"""
    leading: list[Factors]
    """The leading singular triplets of every B_i, where they are known; as subspaces to start from."""


class Iterate(NamedTuple):
    """The task vectors at one z."""

    z: Spanned
    """m × n"""
    leading: list[Factors]
    """The singular triplets of every A_i = B_i − z above cut · μ."""
    deltas: list[Factors]
    norms: Norms
    mu: float
    cut: float
    passes: int


class Sharpness(NamedTuple):
    """How the fit curves near an iterate, in every direction at least as much as an operator C does."""

    curvature: float
    """The smallest eigenvalue of C, from below."""
    shift: float
    """‖C⁻¹ r‖_F for the slope r, from above."""
    force: float
    """‖C^−½ r‖_F, from above: most of r lies where the fit curves more than that."""
    within: float
    """How far z may be from the minimiser for C to tell its distance."""


class Proof(NamedTuple):
    """Upper bounds."""

    gap: float
    """On the relative distance of the objective from its minimum."""
    error: float
    """On how far θ_0 is from that of any minimiser; infinite where z is too far away for a bound."""
    curvature: float | None
    """Of the fit, from below: this one is a lower bound; None where the proof did not need to know it."""


class Converged(NamedTuple):
    """The last iterate, and what is proven of it."""

    here: Iterate
    start: Start
    proof: Proof


class Beginning(NamedTuple):
    """What is known before the first pass."""

    start: Start
    cut: float
    """Share of μ down to which passes are to find triplets."""
    guess: list[Factors] | None
    """The leading triplets of every A_i near the minimum; None where none could be made, or was needed."""
    proven: Converged | None
    """An iterate that is near enough already."""


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


def solution_of(here: Iterate, penalty: Penalty, edge: float, proof: Proof, solver: str) -> Solution:
    """Return what an iterate is as a solution."""
    return Solution(
        here.deltas,
        [values(part.sigma).tolist() for part in here.leading],
        penalty,
        [here.mu] * len(here.deltas),
        edge,
        here.passes,
        proof.gap,
        proof.error,
        solver,
    )
