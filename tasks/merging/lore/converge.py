"""Following Newton's iterates until they are proven to be near enough."""

import math
from collections.abc import Callable
from functools import partial

import torch

from tasks.merging.lore.algebra import Tensor, energy
from tasks.merging.lore.certificate import (
    CAUTION,
    complete,
    distance,
    if_complete,
    limit_of,
    met,
    prove,
    radius_of,
    reach,
    relative_gap,
    residuals,
)
from tasks.merging.lore.enclosure import Enclosure, enclosure_within, prove_anywhere
from tasks.merging.lore.newton import iterates
from tasks.merging.lore.place import slope_at
from tasks.merging.lore.problem import (
    FLAT,
    GAP_INSTEAD,
    Beginning,
    Converged,
    Iterate,
    Near,
    Proof,
    Sharpness,
    Unproven,
    is_coarse,
)
from tasks.merging.lore.uniqueness import Fit, Slope

PATIENCE = 15
"""Passes in which the step has to fall to a half."""
FLOOR = 16
"""Times ε and the size of a deviation: a smaller step is rounding, and another pass takes nothing off it."""
ATTEMPTS = 4
"""Proofs that may fail."""


def follow(B: Tensor, begun: Beginning, tolerance: float | Near, on_pass: Callable[[int], None]) -> Converged:
    """Return the first iterate that is proven to be near enough, for N × m × n deviations, m ≥ n.

    Raises Unproven where more precision, or another solver, is needed.
    """
    start, cut, guess, proven = begun
    if proven:
        return proven
    total = start.total
    goal = _Goal(tolerance, total, len(B))
    best, since, failed = math.inf, 0, 0
    finest = FLOOR * float(torch.finfo(B.dtype).eps) * math.sqrt(total / len(B))
    steps = iterates(B, start, cut, on_pass, guess)
    del begun
    start, guess = start._replace(leading=[]), None  # held by the iterates while they need them
    here = next(steps)
    while True:
        missing = False
        fit = fit_at(here, tolerance)
        enclosure = goal.enclosure(here)
        if enclosure or goal.in_reach(here, fit):
            proof = prove_anywhere(B, total, here, enclosure) if enclosure else goal.proof(B, here, fit)
            if proof is not None and met(proof, tolerance):
                return Converged(here, start, proof)
            failed, missing = failed + 1, proof is None
        step = here.norms.length
        best, since = (step, 0) if step < best / 2 else (best, since + 1)
        if since == PATIENCE or failed == ATTEMPTS or step < finest:
            raise Unproven
        del here, fit  # their matrices, while the next ones are made
        here = steps.send(missing)


class _Goal:
    """What has to be proven, and whether that is worth a try."""

    def __init__(self, tolerance: float | Near, total: float, count: int) -> None:
        self._tolerance, self._total = tolerance, total
        self._coarse = is_coarse(tolerance, total, count)
        self._gap = GAP_INSTEAD if isinstance(tolerance, Near) else tolerance
        self._sharp: Sharpness | None = None
        """Of the last iterate that was looked at: a guess first."""
        self._step = 0.0
        """The step from there, in whose proportion force is taken to fall."""

    def enclosure(self, here: Iterate) -> Enclosure | None:
        """Return what may prove enough without curvature, for weights in few digits."""
        if not (self._coarse and isinstance(self._tolerance, Near)):
            return None
        return enclosure_within(here, self._tolerance.distance)

    def in_reach(self, here: Iterate, fit: Fit) -> bool:
        """Estimate whether a proof would succeed, because one costs as much as a pass."""
        if isinstance(self._tolerance, Near):
            near, step = _near(here, self._tolerance), here.norms.length
            if 2 * step > near:  # no fit curves by more than N
                return False
            known = self._sharp or fit.guess
            if self._sharp is None:
                self._seen(here, known)
            if known.curvature > FLAT:
                return distance(known, 0.0) * step <= near * self._step
        return relative_gap(here, self._total, [0.0] * len(here.deltas)) <= CAUTION * self._gap

    def proof(self, B: Tensor, here: Iterate, fit: Fit) -> Proof | None:
        """Return what can be proven of an iterate, or what could be at most where that would not do.

        None where leading triplets are missing, whose proof takes longest.
        """
        left = residuals(B, here)
        sharp = fit.bound_for(partial(self._met_by, here, sum(left.active)))
        self._seen(here, sharp)
        proof = if_complete(self._total, here, sharp, left)
        return proof if not met(proof, self._tolerance) or complete(B, here, left) else None

    def _seen(self, here: Iterate, sharp: Sharpness) -> None:
        """Estimate by what has been found at an iterate."""
        self._sharp, self._step = sharp, here.norms.length

    def _met_by(self, here: Iterate, residual: float, sharp: Sharpness) -> bool:
        if not isinstance(self._tolerance, Near):
            return False
        return distance(sharp, residual) <= _near(here, self._tolerance)


def proof_of(B: Tensor, here: Iterate, tolerance: float | Near) -> Proof | None:
    """Return what can be proven of an iterate that was found for other matrices; None as with `prove`."""
    total = energy(B)
    if enclosure := _Goal(tolerance, total, len(B)).enclosure(here):
        return prove_anywhere(B, total, here, enclosure)
    return prove(B, total, here, fit_at(here, tolerance).bound, residuals(B, here))


def fit_at(here: Iterate, tolerance: float | Near) -> Fit:
    """Return how the fit curves near an iterate."""
    slope = Slope(len(here.deltas) * here.norms.length, slope_at(here.z, here.deltas))
    asked = tolerance.distance if isinstance(tolerance, Near) else math.inf
    return Fit(here.leading, here.mu, reach(here.cut, here.mu, asked), limit_of(here), slope)


def _near(here: Iterate, tolerance: Near) -> float:
    """Return the distance that an estimate must reach."""
    return CAUTION * min(radius_of(here), tolerance.distance)
