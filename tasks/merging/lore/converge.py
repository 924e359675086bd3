"""Following Newton's iterates until they are proven to be near enough."""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch

from tasks.merging.lore.algebra import ROUNDING, Tensor, energy
from tasks.merging.lore.certificate import (
    complete,
    distance,
    if_complete,
    limit_of,
    met,
    prove,
    radius,
    radius_of,
    relative_gap,
    residuals,
)
from tasks.merging.lore.enclosure import LESS_SURE, SURE, Enclosure, at_mean, enclosure_within, prove_anywhere
from tasks.merging.lore.newton import CUT, DEEP, SHARPEST, cut_below, first_guess, iterates
from tasks.merging.lore.penalty import Scale
from tasks.merging.lore.place import slope_at
from tasks.merging.lore.problem import FLAT, GAP_INSTEAD, Iterate, Near, Proof, Sharpness, Start, Unproven
from tasks.merging.lore.spectrum import look
from tasks.merging.lore.uniqueness import Fit, Slope

GRAM_ROUNDING = 3e-3
"""Share of μ² that the rounding of a Gram matrix may have."""
PATIENCE = 15
"""Passes in which the step has to fall to a half."""
USUAL = 0.25
"""Of a fit's curvature."""
FLOOR = 16
"""Times ε and the size of a deviation: a smaller step is rounding, and another pass takes nothing off it."""
ATTEMPTS = 4
"""Proofs that may fail."""
COARSE = 1.5
"""Deviations that a tolerance is as large as where weights have few digits."""
CAUTION = 0.8
"""Share of the tolerance that the estimate must reach before a proof is tried: it does not know residuals."""
FURTHER = 0.125
"""Share of the radius that curvature reaches beyond what is asked: residuals take some of that."""


class Converged(NamedTuple):
    """The last iterate, and what is proven of it."""

    here: Iterate
    start: Start
    proof: Proof


def converged(B: Tensor, scale: Scale, tolerance: float | Near, on_pass: Callable[[int], None]) -> Converged:
    """Solve for N × m × n deviations, m ≥ n, with the nuclear norm.

    Raises Unproven where more precision, or another solver, is needed.
    """
    total = energy(B)
    eps, size = float(torch.finfo(B.dtype).eps), math.sqrt(total / len(B))
    goal = _Goal(tolerance, total, len(B))
    start = look(B, scale, deeply=goal.coarse)
    if eps * start.largest**2 > GRAM_ROUNDING * start.penalty.mu**2:
        raise Unproven
    # what rounding leaves of the residuals, over a usual curvature
    rounding = 2 * len(B) * (ROUNDING + SHARPEST) * eps * size / USUAL
    cut = cut_below(start, B.shape[2], CUT)
    reach = radius(cut, start.penalty.mu)
    if isinstance(tolerance, Near) and rounding > CAUTION * min(tolerance.distance, reach):
        raise Unproven
    if goal.coarse and (proven := _proven_at_mean(B, start, tolerance, goal)):
        return proven
    best, since, failed = math.inf, 0, 0
    finest = FLOOR * eps * size
    deep = cut if goal.coarse else cut_below(start, B.shape[2], DEEP)
    if guess := first_guess(B, start, deep, on_pass):
        cut = deep  # which costs too much where many passes are to come
    steps = iterates(B, start, cut, on_pass, guess)
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
        size = math.sqrt(total / count)
        self.coarse = isinstance(tolerance, Near) and tolerance.distance >= COARSE * size
        self._gap = GAP_INSTEAD if isinstance(tolerance, Near) else tolerance
        self._sharp: Sharpness | None = None
        """Of the last iterate that was looked at: a guess first."""
        self._step = 0.0
        """The step from there, in whose proportion force is taken to fall."""

    def enclosure(self, here: Iterate, sure: float = SURE) -> Enclosure | None:
        """Return what may prove enough without curvature, for weights in few digits."""
        if not (self.coarse and isinstance(self._tolerance, Near)):
            return None
        return enclosure_within(here, self._tolerance.distance, sure)

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


def _proven_at_mean(B: Tensor, start: Start, tolerance: float | Near, goal: _Goal) -> Converged | None:
    """Return the mean, where all minimisers are proven to be near enough: then no pass is needed."""
    here = at_mean(start, B[0])
    enclosure = here and goal.enclosure(here, LESS_SURE)
    proof = here and enclosure and prove_anywhere(B, energy(B), here, enclosure)
    if here is None or proof is None or not met(proof, tolerance):
        return None
    return Converged(here, start._replace(leading=[]), proof)


def proof_of(B: Tensor, here: Iterate, tolerance: float | Near) -> Proof | None:
    """Return what can be proven of an iterate that was found for other matrices; None as with `prove`."""
    total = energy(B)
    if enclosure := _Goal(tolerance, total, len(B)).enclosure(here):
        return prove_anywhere(B, total, here, enclosure)
    return prove(B, total, here, fit_at(here, tolerance).bound, residuals(B, here))


def fit_at(here: Iterate, tolerance: float | Near) -> Fit:
    """Return how the fit curves near an iterate."""
    slope = Slope(len(here.deltas) * here.norms.length, slope_at(here.z, here.deltas))
    return Fit(here.leading, here.mu, _reach(here, tolerance), limit_of(here), slope)


def _reach(here: Iterate, tolerance: float | Near) -> float:
    """Return how far from an iterate curvature is to tell the distance: the less, the more of it is known."""
    most = radius_of(here)
    asked = min(most, tolerance.distance) if isinstance(tolerance, Near) else most
    return asked + FURTHER * most


def _near(here: Iterate, tolerance: Near) -> float:
    """Return the distance that an estimate must reach."""
    return CAUTION * min(radius_of(here), tolerance.distance)
