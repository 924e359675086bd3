"""What comes before any pass over the matrices, and what that proves where weights have few digits.

The first look finds the leading triplets of every B_i, and the minimiser is guessed within their span. Half a
last place of bfloat16 is often more than all that any minimiser may be from the mean, or from the guess.
"""

import math
from collections.abc import Callable

import torch

from tasks.merging.lore.algebra import ROUNDING, Tensor, energy
from tasks.merging.lore.certificate import CAUTION, met, radius
from tasks.merging.lore.enclosure import (
    LESS_SURE,
    at_guess,
    at_mean,
    enclosure_within,
    prove_anywhere,
)
from tasks.merging.lore.newton import CUT, DEEP, SHARPEST, cut_below, first_guess
from tasks.merging.lore.penalty import Scale
from tasks.merging.lore.problem import Beginning, Converged, Iterate, Near, Start, Unproven, is_coarse
from tasks.merging.lore.spectrum import look

GRAM_ROUNDING = 3e-3
"""Share of μ² that the rounding of a Gram matrix may have."""
USUAL = 0.25
"""Of a fit's curvature."""


def begin(B: Tensor, scale: Scale, tolerance: float | Near, on_pass: Callable[[int], None]) -> Beginning:
    """Look at N × m × n deviations, m ≥ n, and guess.

    Raises Unproven where their precision cannot prove the tolerance.
    """
    start = look(B, scale, tolerance)
    total, coarse = start.total, is_coarse(tolerance, start.total, len(B))
    mu, columns = start.penalty.mu, B.shape[2]
    cut = cut_below(start, columns, CUT)
    eps, size = float(torch.finfo(B.dtype).eps), math.sqrt(total / len(B))
    # what rounding leaves of the residuals, over a usual curvature
    rounding = 2 * len(B) * (ROUNDING + SHARPEST) * eps * size / USUAL
    if eps * start.largest**2 > GRAM_ROUNDING * mu**2 or (
        isinstance(tolerance, Near) and rounding > CAUTION * min(tolerance.distance, radius(cut, mu))
    ):
        raise Unproven
    here = at_mean(start, B[0]) if coarse else None
    if here and (proven := _enclosed(B, total, start, here, tolerance)):
        return Beginning(start, cut, None, proven)
    deep = cut if coarse else cut_below(start, columns, DEEP)
    guess = first_guess(B, start, deep, on_pass)
    proven = None
    if guess:
        cut = deep  # which costs too much where many passes are to come
        if coarse:
            proven = _enclosed(B, total, start, at_guess(guess, mu, cut), tolerance)
    return Beginning(start, cut, guess, proven)


def proven_at_once(
    B: Tensor, scale: Scale, tolerance: float | Near, on_pass: Callable[[int], None]
) -> Converged | None:
    """Solve without a pass over the matrices, where weights have few digits; None where that does not do."""
    if not is_coarse(tolerance, energy(B), len(B)):
        return None
    try:
        return begin(B, scale, tolerance, on_pass).proven
    except Unproven:
        return None


def _enclosed(
    B: Tensor, total: float, start: Start, here: Iterate, tolerance: float | Near
) -> Converged | None:
    """Return an iterate, where all minimisers are proven to be near enough: then no pass is needed."""
    assert isinstance(tolerance, Near)
    enclosure = enclosure_within(here, tolerance.distance, LESS_SURE)
    proof = enclosure and prove_anywhere(B, total, here, enclosure)
    if proof is None or not met(proof, tolerance):
        return None
    return Converged(here, start._replace(leading=[]), proof)
