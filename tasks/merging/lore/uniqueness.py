"""How sharply the minimum is determined: a bound on the curvature of the fit (docs/mathematics.md, fact 5).

The fit curves in direction H by ⟨H, N·H − ΣK_i(H)⟩. The smallest value for ‖H‖ = 1 is N where no singular
value exceeds μ, and 0 where all checkpoints share a direction in which the minimiser is not unique.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

import torch

from tasks.merging.lore.algebra import Factors, Spanned, Tensor, gaussian, inner_each
from tasks.merging.lore.curvature import (
    Bases,
    Curvature,
    coarse,
    conjugate_gradients,
    in_bases,
    joint,
)
from tasks.merging.lore.lanczos import Bounds, looks
from tasks.merging.lore.problem import FLAT, Sharpness

STEPS = 150
"""Of Lanczos, at most."""
ENOUGH, AT_LEAST = 0.7, 0.25
"""Shares of the estimate at which the bound is good enough, and may be."""
GUESSED, SETTLED = 30, 0.9
"""Steps of Lanczos for a guess, or fewer where ten steps have taken less than a tenth off it."""
RESIDUAL, SOLVES = 0.03, 40
"""Of conjugate gradients, in units of the slope, and their steps."""
SLACK, SLIP, ROUNDING = 0.01, 1e-6, 8
"""For rounding: of the force and of μ, a share; of the curvature, in units of ε and its largest value."""


class Slope(NamedTuple):
    """The slope r of the fit, m × n."""

    size: float
    """‖r‖_F"""
    r: Spanned
    """As a product: a small difference of large parts, and so in the precision of the matrices."""


class Pull(NamedTuple):
    """What C makes of the slope, ‖r‖ = 1, but for what is left."""

    force: float
    """⟨r, C⁻¹r⟩"""
    shift: float
    """‖C⁻¹r‖²"""
    left: float
    """‖e‖, whose share of these is not known."""


def pulls(curvature: Curvature, N: int, r: Tensor) -> list[Pull]:
    """Return what C makes of r within the bases, ‖r‖ ≤ 1: of one core p × q, or of each of several.

    For any x and e = r − Cx, ⟨r, C⁻¹r⟩ is 2⟨r, x⟩ − ⟨x, Cx⟩ + ⟨e, C⁻¹e⟩.
    """
    x = conjugate_gradients(lambda X: N * X - curvature.of(X), r, RESIDUAL, SOLVES)
    image = N * x - curvature.of(x)
    left = r - image
    parts = (inner_each(2 * r - image, x), inner_each(x, x), inner_each(left, left).sqrt())
    return [Pull(*own) for own in zip(*(part.flatten().tolist() for part in parts), strict=True)]


def sharpness(least: float, N: int, size: float | None, pull: Callable[[], Pull], within: float) -> Sharpness:
    """Return what follows for a slope of that size where C, in float32, is nowhere smaller."""
    rounding = ROUNDING * N * torch.finfo(torch.float32).eps
    least = max(least - rounding, 0.0)
    if size is None or SLACK * least < rounding:
        return Sharpness(least, math.inf, math.inf, within)
    if not size:
        return Sharpness(least, 0.0, 0.0, within)
    own = pull()
    force, shift = own.force + own.left**2 / least, own.shift**0.5 + own.left / least
    return Sharpness(least, (1 + SLACK) * size * shift, (1 + SLACK) * size * force**0.5, within)


def still_sharpness(still: float, size: float, within: float) -> Sharpness:
    """Return what follows where in so many of the matrices nothing leads: K_i = 0 for each of these."""
    return Sharpness(still, size / still, size / still**0.5, within)


class Fit:
    """How the fit curves, and the force of a slope, near where some leading triplets were found.

    A guess comes first and is no bound; the bound goes on from it.
    """

    def __init__(
        self, found: Sequence[Factors], mu: float, within: float, rest: float, slope: Slope | None = None
    ) -> None:
        """Take the leading triplets of every A_i, of which no other σ exceeds `rest`, and r, m × n.

        What is said of the fit holds at most `within` < μ − rest away.
        """
        # what leads there, leads here; and what exceeds μ is to do so in float32, too
        mu = (mu - within) * (1 - SLIP)
        self._found, self._rest, self._slope, self._within = coarse(found, mu), rest / mu, slope, within
        self._active = [part.above(1.0) for part in self._found]
        self._still = sum(part.rank == 0 for part in self._active)
        self._looks: Iterator[list[Bounds]] | None = None
        self._last = Bounds(0, math.inf, 0.0, exhausted=self._still > 0)

    @property
    def guess(self) -> Sharpness:
        """What curvature and force seem to be, in a fraction of the time."""
        while not self._last.exhausted and self._last.steps < GUESSED:
            before = self._last.estimate
            if self._look().estimate > SETTLED * before:
                break
        return self._sharpness(self._last.estimate)

    @property
    def bound(self) -> Sharpness:
        """A lower bound on the curvature, below FLAT maybe 0, and an upper one on the force."""
        return self.bound_for(lambda sharp: False)

    def bound_for(self, suffices: Callable[[Sharpness], bool]) -> Sharpness:
        """Return such bounds; less sharp ones if they suffice."""
        while not self._last.exhausted and self._last.steps < STEPS:
            estimate, bound = self._last.estimate, self._last.bound
            # the estimate is never below the curvature
            if estimate < FLAT or bound >= ENOUGH * estimate:
                break
            if bound >= AT_LEAST * estimate and suffices(self._sharpness(bound)):
                break
            self._look()
        return self._sharpness(self._last.bound)

    def _look(self) -> Bounds:
        if self._looks is None:
            shape = self._bases.U.shape[1], self._bases.V.shape[1]
            start = gaussian(*shape, like=self._bases.U)
            self._looks = looks(self._curvature, len(self._found), start)
        [self._last] = next(self._looks)
        return self._last

    def _sharpness(self, inside: float) -> Sharpness:
        size = self._slope.size if self._slope else None
        if self._still:
            return still_sharpness(float(self._still), size or 0.0, self._within)
        least = min(inside, self._beside)
        return sharpness(least, len(self._found), size, lambda: self._pull, self._within)

    def _outside(self, sigma: Tensor) -> Tensor:
        # whatever the other singular value is, up to `rest`
        return (sigma - 1).clamp(min=0) / (sigma - self._rest).clamp(min=1 - self._rest)

    @cached_property
    def _bases(self) -> Bases:
        return joint(self._found, [])

    @cached_property
    def _curvature(self) -> Curvature:
        return Curvature(in_bases(self._found, self._bases), (1.0, 1.0), self._outside)

    @cached_property
    def _sides(self) -> tuple[Tensor, Tensor]:
        """C on directions with one side among what leads, p × p, and the other outside of all, q × q."""
        sides = []
        for side in (0, 2):
            parts = [part[side] * self._outside(part.sigma).sqrt() for part in self._active]
            own = self._bases[side // 2].T @ torch.cat(parts, 1)
            sides.append(len(self._found) * torch.eye(len(own), device=own.device) - own @ own.T)
        return sides[0], sides[1]

    @cached_property
    def _beside(self) -> float:
        """The smallest value there."""
        return min(float(torch.linalg.eigvalsh(side)[0]) for side in self._sides)

    def _slopes(self, slope: Slope) -> tuple[Tensor, Tensor, Tensor]:
        """Return r/‖r‖ within the bases, p × q, and with one side among what leads only: p × n, q × m."""
        size, r = slope
        U, V = (basis.to(r.core.dtype) for basis in self._bases)
        left, right = U.T @ r.U, V.T @ r.V
        core = r.core / size
        parts = (
            left @ core @ right.T,
            left @ core @ (r.V - V @ right).T,
            right @ core.T @ (r.U - U @ left).T,
        )
        return parts[0].float(), parts[1].float(), parts[2].float()

    @cached_property
    def _pull(self) -> Pull:
        """What C makes of r, for ‖r‖ = 1."""
        assert self._slope is not None
        N = len(self._found)
        core, *asides = self._slopes(self._slope)
        [(force, shift, left)] = pulls(self._curvature, N, core)
        own = float((core * core).sum())
        for side, aside in zip(self._sides, asides, strict=True):
            solved = torch.linalg.solve(side, aside)
            force += float((aside * solved).sum())
            shift += float((solved * solved).sum())
            own += float((aside * aside).sum())
        rest = max(1 - own, 0.0)  # where C is N
        return Pull(force + rest / N, shift + rest / N**2, left)
