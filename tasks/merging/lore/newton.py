"""Newton's method on z, the base's distance from the mean (docs/mathematics.md, fact 6).

At the minimum ΣClip_μ(B_i − z) = 0. A pass finds the leading singular triplets of every A_i = B_i − z, and
solves (1 − ΣK_i/N + τ) x = s for the step by conjugate gradients within their span, s = −z − S/N being the
step of plain descent; then z ← −S/N + ΣK_i(x)/N. τ damps the step where the objective rose: with a large one
plain descent is left. And a step that raised the objective is taken back in part: far from the minimum, where
all singular values lead, the curvature vanishes and steps are far too long.
"""

from collections.abc import Callable, Generator

import torch

from tasks.merging.lore.algebra import (
    Factors,
    Spanned,
    Tensor,
    computed_together,
    product,
    shifted,
    zero,
)
from tasks.merging.lore.columns import near
from tasks.merging.lore.curvature import (
    Bases,
    Curvature,
    coarse,
    conjugate_gradients,
    in_bases,
    joint,
    shrunk,
)
from tasks.merging.lore.lapack import eigenpairs_above
from tasks.merging.lore.place import (
    best_base,
    between,
    norms_of,
    nowhere,
    slope_towards,
    step_within,
    sum_within,
)
from tasks.merging.lore.problem import Iterate, Start
from tasks.merging.lore.steering import (
    BESIDE,
    BOLDER,
    CG_STEPS,
    CUT,
    DESCENT,
    FINE,
    FIRST_DAMPING,
    LEAST_DAMPING,
    MOST_DAMPING,
    REST,
    UNDAMPED,
)
from tasks.merging.lore.triplets import DIRECT, Sought, triplets_above

PROVABLE = 0.1
"""Residual of leading triplets that a proof may meet, in units of what lies between the cut and μ."""
GUESSED, BLUNT = 0.07, 0.03
"""Residual that leading triplets may have at a guess, else a tenth of the step that is left; and from there
what those may have that do not reach μ, at first all of it: in units of what lies between the cut and μ."""
SHARPEST = 4
"""Residual of leading triplets that rounding leaves, in units of ε and the size of a deviation."""


def iterates(
    B: Tensor, start: Start, cut: float, on_pass: Callable[[int], None], guess: list[Factors] | None = None
) -> Generator[Iterate, bool, None]:
    """Yield the iterates from where μ has come down to its value, for N × m × n deviations, m ≥ n.

    `guess` are the leading triplets of every A_i near the minimum, where μ need not come down. Sending True
    makes the next pass look for leading triplets that this one has missed.
    """
    N, total, mu = len(B), start.total, start.penalty.mu
    z = last = nowhere(B[0])
    known, found, nothing = start.leading, list[Factors](), zero(B[0])
    # What one checkpoint alone has, all others have too, by −1/(N − 1): that must not lead with it.
    descent = max(DESCENT, 1.1 / (N - 1))
    level, damping, before, passes = max(descent * start.largest, mu), FIRST_DAMPING, float("inf"), 0
    provable = PROVABLE * (1 - cut) * mu / N
    size, remaining, lowest = (total / N) ** 0.5, 1.0, 0.0
    thorough, slope = False, 0.0
    if guess:
        z = last = best_base([part.thresholded(mu) for part in guess]).spread()
        known, found, level, damping = guess, [part.above(mu) for part in guess], mu, 0.0
    del start
    while True:
        passes += 1
        on_pass(passes)
        # What exceeds the level leads, and is cut to the μ after it: the minimiser moves with μ along a line
        # as long as nothing else comes to lead. With a small μ at once everything would lead everywhere.
        following = max(mu, descent * level)
        gap = (1 - cut) * level
        sharp = 0.1 * min(remaining, 0.1) * size
        if guess and passes == 1:
            sharp = GUESSED * gap
        elif level == mu and provable < sharp < 4 * provable:
            sharp = provable
        # no sharper than rounding lets them be
        sharp = max(sharp, SHARPEST * torch.finfo(B.dtype).eps * size)
        blunt = max(sharp, gap if passes == 1 else BLUNT * gap) if guess else sharp
        sought = Sought(level - gap, level - gap / 2, sharp, blunt, thorough and level == mu)
        if passes > 1 or guess or not known or level <= max(float(part.sigma[-1]) for part in known):
            known = _leading(B, z, known or [nothing] * N, sought)
        previous, found = found, [part.above(cut * level) for part in known]
        deltas = [part.thresholded(following, level) for part in found]
        norms = norms_of(z, deltas)
        remaining = norms.length / size
        # Σh(B_i − z), the objective with the best task vectors for this z
        objective = (total + N * norms.energy) / 2 - sum(
            float(d.sigma.double().square().sum()) for d in deltas
        ) / 2
        bold = level == mu and objective > before + 8 * torch.finfo(B.dtype).eps * total
        last = last if bold else z
        if level == mu:
            thorough = bool((yield Iterate(z, found, deltas, norms, mu, cut, passes)))
        if bold:
            # Too bold: part of the way back, and for a while the damping does not get that low again.
            share = _share(slope, slope_towards(last, z, deltas))
            z, slope = between(last, z, share), slope * share
            damping = lowest = min(BOLDER * max(damping, LEAST_DAMPING), MOST_DAMPING)
            continue
        damping, lowest = max(damping / UNDAMPED, lowest), lowest / BOLDER
        before = objective if level == mu else float("inf")
        bases, beside = joint(found, previous), found
        if remaining < FINE:
            beside = _with_others(B, z, found, bases, following)
        z, pull = _next(z, deltas, beside, bases, (following, level), damping, remaining)
        slope = -(norms.length**2 + pull)
        level = following


def _leading(B: Tensor, z: Spanned, known: list[Factors], sought: Sought) -> list[Factors]:
    return [
        part for b, own in computed_together(B, known) for part in triplets_above(shifted(b, z), sought, own)
    ]


def _share(slope: float, there: float) -> float:
    """Return at which share of a move its slope vanishes, by those at both ends: from a tenth to a half."""
    return min(max(slope / (slope - there), 0.1), 0.5) if slope < min(there, 0.0) else 0.5


def cut_below(start: Start, columns: int, least: float) -> float:
    """Return the share of μ down to which singular triplets are found: at least the one given.

    Subspaces stop a quarter of the way from the noise edge to μ: they are slow at telling noise from noise.
    """
    if start.edge >= start.penalty.mu:
        return CUT
    cut = max(least, (1 + 3 * start.edge / start.penalty.mu) / 4)
    return cut if columns > DIRECT else min(cut, CUT)


def _next(
    z: Spanned,
    deltas: list[Factors],
    known: list[Factors],
    bases: Bases,
    cuts: tuple[float, float],
    damping: float,
    remaining: float,
) -> tuple[Spanned, float]:
    """Return −S/N + ΣK_i(x)/N, and ⟨step, ΣK_i(x)/N⟩."""
    N, least = len(known), REST**2
    step = step_within(z, deltas, *bases)
    length = float(torch.linalg.matrix_norm(step)) or 1.0

    def outside(sigma: Tensor) -> Tensor:
        return shrunk(sigma, 1.0, level) * sigma / (sigma**2 - least).clamp(min=least)

    mu, level = cuts[0], cuts[1] / cuts[0]
    coordinates = in_bases(coarse(known, mu), Bases(bases.U.float(), bases.V.float()))
    curvature = Curvature(coordinates, (1.0, level), outside)
    x = conjugate_gradients(
        lambda X: (1 + damping) * X - curvature.of(X) / N,
        (step / length).float(),
        max(0.01, min(0.2, 3 * remaining)),
        CG_STEPS,
    )
    pulled = curvature.of(x).to(step.dtype) * (length / N)
    core = pulled - sum_within(deltas, *bases) / N
    return Spanned(bases.U, core, bases.V).spread(), float((pulled * step).sum())


def _with_others(B: Tensor, z: Spanned, found: list[Factors], bases: Bases, mu: float) -> list[Factors]:
    """Return the leading triplets of every A_i and the larger part of what else it has where others lead.

    What leads in one checkpoint is seldom noise in another. The coefficients of K_i between σ and these
    depend on them; one guess for all is wrong by a fifth.
    """
    width = min(sum(part.rank for part in found), bases.U.shape[1], bases.V.shape[1])
    U, V = (basis[:, :width] for basis in bases)
    moved, known = z.times(V), []
    cores = torch.stack(
        [
            U.T @ (product(b, V) - moved) - (U.T @ own.U * own.sigma) @ (own.V.T @ V)
            for b, own in zip(B, found, strict=True)
        ]
    )
    for own, core, square in zip(found, cores, near(cores.mT @ cores), strict=True):
        # what is wanted is no small part of it: a Gram matrix does not lose it
        squares, Q = (part.to(core.device) for part in eigenpairs_above(square, (BESIDE * mu) ** 2, 0))
        k = min(len(squares), width - own.rank)
        sigma, Q = squares[:k].sqrt(), Q[:, :k]
        more = Factors(U @ (core @ Q / sigma), sigma, V @ Q)
        known.append(Factors(*(torch.cat(parts, -1) for parts in zip(own, more, strict=True))))
    return known
