"""What comes before any pass over the matrices, and what that proves where weights have few digits.

The minimiser differs from the mean by what leads in one checkpoint or another, and nearly all of that lies in
the span of the leading singular vectors of all B_i, which the first look finds. There the matrices are small,
and passes cost little: what they leave, a few hundredths of μ, is what the rest of the matrices adds. Half a
last place of bfloat16 is often more than all that any minimiser may be from the mean, or from that guess.
"""

import math
from collections.abc import Callable

import torch

from tasks.merging.lore.algebra import ROUNDING, Factors, Tensor, energy, inner_each, product
from tasks.merging.lore.certificate import CAUTION, met, radius
from tasks.merging.lore.columns import spare
from tasks.merging.lore.curvature import joint
from tasks.merging.lore.enclosure import (
    LESS_SURE,
    at_guess,
    at_mean,
    enclosure_within,
    prove_anywhere,
)
from tasks.merging.lore.newton import SHARPEST, cut_below, iterates
from tasks.merging.lore.penalty import Scale
from tasks.merging.lore.problem import Beginning, Converged, Iterate, Near, Start, Unproven, is_coarse
from tasks.merging.lore.small import FEW_COLUMNS, eigenpairs, passes
from tasks.merging.lore.spectrum import look
from tasks.merging.lore.steering import CUT, DEEP

GRAM_ROUNDING = 3e-3
"""Share of μ² that the rounding of a Gram matrix may have."""
USUAL = 0.25
"""Of a fit's curvature."""
NARROW = 2
"""Columns of the matrices for each of the span of what leads, at least: else passes there gain nothing."""
INSIDE = 0.5
"""Share of μ down to which triplets are found there: they cost little, and the search starts from them."""
SETTLED, MOST_SMALL = 0.05, 12
"""The step, in units of μ, that is left to passes on the whole matrices; passes in the span, at most."""


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


def first_guess(B: Tensor, start: Start, cut: float, on_pass: Callable[[int], None]) -> list[Factors] | None:
    """Return the leading triplets of every B_i − z at a first guess of z, for N × m × n deviations, m ≥ n.

    That z is −Σδ_i/N. None where nothing leads, or nothing is known of it, or the span is too large.
    """
    mu, n = start.penalty.mu, B.shape[2]
    found = [part.above(max(cut, CUT) * mu) for part in start.leading]
    columns = sum(part.rank for part in found)
    if not 0 < NARROW * columns <= n:
        return None
    bases = joint(found, [])
    cores = torch.stack([bases.U.T @ product(b, bases.V) for b in B]).cpu()
    cores -= cores.mean(0)
    told = (
        _with_all(cores, start, on_pass) if columns <= FEW_COLUMNS else _with_leading(cores, start, on_pass)
    )
    wide = [part.above(cut * mu).rank for part in told]
    kept = (part.truncated(k + spare(k)) for part, k in zip(told, wide, strict=True))
    parts = ((U.to(bases.U), sigma.to(bases.U), V.to(bases.V)) for U, sigma, V in kept)
    return [Factors(bases.U @ U, sigma, bases.V @ V) for U, sigma, V in parts]


def _with_leading(cores: Tensor, start: Start, on_pass: Callable[[int], None]) -> list[Factors]:
    mu, within = start.penalty.mu, start._replace(leading=[], total=energy(cores))
    for here in iterates(cores, within, INSIDE, lambda number: on_pass(1)):
        if here.norms.length < SETTLED * mu or here.passes == MOST_SMALL:
            break
    return here.leading


def _with_all(cores: Tensor, start: Start, on_pass: Callable[[int], None]) -> list[Factors]:
    """Find all triplets in every pass, in float64: where they are few that costs nothing."""
    cores = cores.double()
    cores -= cores.mean(0)
    mu = cores.new_full((1, 1, 1), start.penalty.mu)
    steps = passes(cores[None], eigenpairs(cores[None]), mu)
    number, now = 1, next(steps)
    while not (
        now.level == mu and (number >= MOST_SMALL or inner_each(now.step, now.step) < (SETTLED * mu) ** 2)
    ):
        on_pass(1)
        number, now = number + 1, steps.send(torch.ones(1, dtype=torch.bool))
    return now.found.of(0, INSIDE * start.penalty.mu)
