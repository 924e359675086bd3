"""Many small problems at once, in float64: full decompositions in every pass (docs/mathematics.md, fact 6).

Newton's iterates are those of newton.py, but all triplets are known, which costs little here; and problems
lie in one array P × N × m × n, because calls would take the time; numbers of each are P × 1 × 1. Every
problem goes its own way, and leaves when it is done.
"""

import math
from collections.abc import Generator
from typing import NamedTuple, Self

import torch

from tasks.merging.lore.algebra import Factors, Tensor, inner_each
from tasks.merging.lore.curvature import Coordinates, Curvature, Cutoff, conjugate_gradients, shrunk
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

FEW_COLUMNS = 128
"""Columns up to which all triplets cost little."""
SHARP_SQUARES = 1e-10
"""Share of the least σ² wanted that the rounding of a Gram matrix may have: nothing makes up for it here."""


class RightPairs(NamedTuple):
    """Of P × N matrices, from the eigenpairs of AᵀA."""

    sigma: Tensor
    """P × N × n, all singular values, descending, exact to √ε · σ_1."""
    V: Tensor
    """P × N × n × n"""


class Triplets(NamedTuple):
    """The singular triplets of P × N matrices that exceed a floor; zeros where one matrix has fewer."""

    U: Tensor
    """P × N × m × r"""
    sigma: Tensor
    """P × N × r"""
    V: Tensor
    """P × N × n × r"""
    spectra: Tensor
    """P × N × n, all singular values, exact to √ε · σ_1."""

    def of(self, problem: int, limit: float) -> list[Factors]:
        """Return those of one problem that exceed a limit."""
        parts = zip(self.U[problem], self.sigma[problem], self.V[problem], strict=True)
        return [Factors(*own).above(limit) for own in parts]

    def above(self, limit: Tensor, unit: Tensor) -> Coordinates:
        """Return those that exceed a limit, for their curvature: in float32, and in a unit."""
        kept = self.sigma > limit
        r = max(int(kept.sum(-1).max()), 1)
        kept = kept[..., :r]
        sigma = torch.where(kept, self.sigma[..., :r] / unit, 0.0).float()
        U, V = ((part[..., :r].mT * kept[..., None]).float() for part in (self.U, self.V))
        return Coordinates(U, sigma, V)


class Pass(NamedTuple):
    """The task vectors at one z, of P problems."""

    problem: Tensor
    """P, which of all they are."""
    z: Tensor
    """P × m × n"""
    found: Triplets
    shrunk: Tensor
    """P × N × r, the singular values of the δ_i."""
    step: Tensor
    """P × m × n, −z − S/N."""
    following: Tensor
    """What was taken off the singular values: μ, or what it has come down to."""
    level: Tensor
    """What they had to exceed for that."""
    objective: Tensor

    def some(self, kept: Tensor) -> Self:
        """Return that of some problems."""
        problem, z, found, *rest = self
        some = Triplets(*(part[kept] for part in found))
        return type(self)(problem[kept], z[kept], some, *(part[kept] for part in rest))


class _Search(NamedTuple):
    """Where P problems are, and how boldly they go on."""

    problem: Tensor
    B: Tensor
    mu: Tensor
    total: Tensor
    """Σ‖B_i‖²"""
    z: Tensor
    last: Tensor
    level: Tensor
    damping: Tensor
    lowest: Tensor
    before: Tensor
    """The objective of the pass before, infinite while μ comes down."""
    slope: Tensor

    def some(self, kept: Tensor) -> Self:
        """Return that of some problems."""
        return type(self)(*(part[kept] for part in self))


def passes(B: Tensor, pairs: RightPairs, mu: Tensor) -> Generator[Pass, Tensor, None]:
    """Yield the iterates of P × N × m × n deviations, from the first pass on, on which μ comes down.

    `mu` is P × 1 × 1. Sending a mask of those that were yielded goes on with these.
    """
    P, N, m, n = B.shape
    # what one checkpoint alone has, all others have too, by −1/(N − 1): that must not lead with it
    descent = max(DESCENT, 1.1 / (N - 1))
    total, none = energies(B), torch.zeros_like(mu)
    z, level = B.new_zeros(P, m, n), torch.maximum(descent * pairs.sigma.amax((1, 2))[:, None, None], mu)
    here = _Search(
        torch.arange(P), B, mu, total, z, z, level, none + FIRST_DAMPING, none, none + math.inf, none
    )
    A = B
    while True:
        following = torch.maximum(here.mu, descent * here.level)
        found = triplets(A, pairs, BESIDE * here.level)
        d = shrunk(found.sigma, following, here.level)
        step = -here.z - ((found.U * d[..., None, :]) @ found.V.mT).sum(1) / N
        # Σh(B_i − z), the objective with the best task vectors for this z
        objective = (here.total + N * inner_each(here.z, here.z) - inner_each(d, d)) / 2
        now = Pass(here.problem, here.z, found, d, step, following, here.level, objective)
        kept = yield now
        here = _next(here.some(kept), now.some(kept))
        A = here.B - here.z[:, None]
        pairs = eigenpairs(A)


def energies(B: Tensor) -> Tensor:
    """Return Σ‖B_i‖² of P × N × m × n matrices, P × 1 × 1."""
    return B.square().sum((1, 2, 3))[:, None, None]


def eigenpairs(A: Tensor) -> RightPairs:
    """Return the singular values and right vectors of P × N × m × n matrices."""
    squares, V = torch.linalg.eigh(A.mT @ A)
    return RightPairs(squares.flip(-1).clamp(min=0).sqrt(), V.flip(-1))


def triplets(A: Tensor, pairs: RightPairs, floor: Tensor) -> Triplets:
    """Return all triplets of P × N × m × n matrices, float64, that exceed a floor, P × 1 × 1.

    By eigenpairs of AᵀA where their rounding leaves the triplets sharp.
    """
    spectra, V = pairs
    largest = spectra[..., :1].amax(1, keepdim=True)
    blurred = torch.finfo(A.dtype).eps * largest**2 > SHARP_SQUARES * floor**2
    if blurred.any():
        spectra, V = spectra.clone(), V.clone()
    for k in blurred.flatten().nonzero().flatten().tolist():
        _, sigma, Vt = torch.linalg.svd(A[k])
        spectra[k] = torch.nn.functional.pad(sigma, (0, A.shape[3] - sigma.shape[1]))
        V[k] = Vt.mT
    V = V[..., : max(int((spectra > floor).sum(-1).max()), 1)]
    U = A @ V
    sigma = torch.linalg.vector_norm(U, dim=-2)
    kept = sigma > floor
    U, V = U / torch.where(kept, sigma, math.inf)[..., None, :], V * kept[..., None, :]
    return Triplets(U, sigma * kept, V, spectra)


def _next(here: _Search, now: Pass) -> _Search:
    """Return where a pass leads: to −S/N + ΣK_i(x)/N, or part of the way back where the objective rose."""
    settled = here.level == here.mu
    bold = settled & (now.objective > here.before + 8 * torch.finfo(here.B.dtype).eps * here.total)
    damping = torch.maximum(here.damping / UNDAMPED, here.lowest)
    z, pull = _newton(here, now, damping)
    onward = here._replace(
        z=z,
        last=here.z,
        level=now.following,
        damping=damping,
        lowest=here.lowest / BOLDER,
        before=torch.where(settled, now.objective, math.inf),
        slope=-inner_each(now.step, now.step) - pull,
    )
    if not bold.any():
        return onward
    there = inner_each(here.last - here.z, now.step)
    share = torch.where(
        here.slope < there.clamp(max=0.0), (here.slope / (here.slope - there)).clamp(0.1, 0.5), 0.5
    )
    careful = (BOLDER * here.damping.clamp(min=LEAST_DAMPING)).clamp(max=MOST_DAMPING)
    back = here._replace(
        z=(1 - share) * here.last + share * here.z, damping=careful, lowest=careful, slope=here.slope * share
    )
    moved = (torch.where(bold, own, other) for own, other in zip(back[4:], onward[4:], strict=True))
    return _Search(*here[:4], *moved)


def _newton(here: _Search, now: Pass, damping: Tensor) -> tuple[Tensor, Tensor]:
    """Return −S/N + ΣK_i(x)/N, and ⟨step, ΣK_i(x)/N⟩."""
    N, least = here.B.shape[1], REST**2
    length = inner_each(now.step, now.step).sqrt()
    remaining = length / (here.total / N).sqrt()
    # before, what leads changes
    limit = torch.where(remaining < FINE, BESIDE, CUT) * now.level
    level: Cutoff = (now.level / now.following).float()

    def outside(sigma: Tensor) -> Tensor:
        return shrunk(sigma, 1.0, level) * sigma / (sigma**2 - least).clamp(min=least)

    curvature = Curvature(now.found.above(limit, now.following), (1.0, level), outside)
    least_damped = 1 + damping.float()
    x = conjugate_gradients(
        lambda X: least_damped * X - curvature.of(X) / N,
        (now.step / length.clamp(min=torch.finfo(length.dtype).tiny)).float(),
        (3 * remaining).clamp(0.01, 0.2).float(),
        CG_STEPS,
    )
    pulled = curvature.of(x).double() * (length / N)
    # −S/N is z and the step
    return here.z + now.step + pulled, inner_each(pulled, now.step)
