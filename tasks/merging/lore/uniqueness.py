"""How sharply the minimum is determined: a bound on the curvature of the fit (docs/mathematics.md, fact 5).

The fit curves in direction H by ⟨H, N·H − ΣK_i(H)⟩. The smallest value for ‖H‖ = 1 is N where no singular
value exceeds μ, and 0 where all checkpoints share a direction in which the minimiser is not unique.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

import torch

from tasks.merging.lore.algebra import Factors, Spanned, Tensor, gaussian
from tasks.merging.lore.curvature import Bases, Curvature, coarse, conjugate_gradients, joint
from tasks.merging.lore.problem import FLAT, Sharpness

DOUBT = 1e-6
"""The probability, over the random start, that the bound is wrong."""
STEPS, CHECK = 150, 10
"""Of Lanczos, and how often the bound is looked at."""
ENOUGH, AT_LEAST = 0.7, 0.25
"""Shares of the estimate at which the bound is good enough, and may be."""
GUESSED, SETTLED = 30, 0.9
"""Steps of Lanczos for a guess, or fewer where ten steps have taken less than a tenth off it."""
RESIDUAL, SOLVES = 0.03, 40
"""Of conjugate gradients, in units of the slope, and their steps."""
CLOSELY = 0.05
"""Share of a bound to which it is computed."""
SLACK, SLIP, ROUNDING = 0.01, 1e-6, 8
"""For rounding: of the force and of μ, a share; of the curvature, in units of ε and its largest value."""


class _Look(NamedTuple):
    """What some steps of Lanczos tell of the smallest value."""

    steps: int
    estimate: float
    """Never below it."""
    bound: float
    """Never above it."""
    exhausted: bool


class Slope(NamedTuple):
    """The slope r of the fit, m × n."""

    size: float
    """‖r‖_F"""
    r: Spanned
    """As a product: a small difference of large parts, and so in the precision of the matrices."""


class _Pull(NamedTuple):
    """What C makes of the slope, ‖r‖ = 1, but for what is left."""

    force: float
    """⟨r, C⁻¹r⟩"""
    shift: float
    """‖C⁻¹r‖²"""
    left: float
    """‖e‖, whose share of these is not known."""


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
        self._looks: Iterator[_Look] | None = None
        self._last = _Look(0, math.inf, 0.0, exhausted=self._still > 0)

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

    def _look(self) -> _Look:
        if self._looks is None:
            self._looks = _looks(self._curvature, len(self._found), self._bases)
        self._last = next(self._looks)
        return self._last

    def _sharpness(self, inside: float) -> Sharpness:
        size = self._slope.size if self._slope else 0.0
        if self._still:  # K_i = 0 for each of these
            still = float(self._still)
            return Sharpness(still, size / still, size / still**0.5, self._within)
        rounding = ROUNDING * len(self._found) * torch.finfo(self._bases.U.dtype).eps
        least = max(min(inside, self._beside) - rounding, 0.0)
        if self._slope is None or SLACK * least < rounding:
            return Sharpness(least, math.inf, math.inf, self._within)
        if not size:
            return Sharpness(least, 0.0, 0.0, self._within)
        pull = self._pull
        force, shift = pull.force + pull.left**2 / least, (pull.shift**0.5 + pull.left / least)
        return Sharpness(least, (1 + SLACK) * size * shift, (1 + SLACK) * size * force**0.5, self._within)

    def _outside(self, sigma: Tensor) -> Tensor:
        # whatever the other singular value is, up to `rest`
        return (sigma - 1).clamp(min=0) / (sigma - self._rest).clamp(min=1 - self._rest)

    @cached_property
    def _bases(self) -> Bases:
        return joint(self._found, [])

    @cached_property
    def _curvature(self) -> Curvature:
        return Curvature(self._found, (1.0, 1.0), self._bases, self._outside)

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
    def _pull(self) -> _Pull:
        """What C makes of r, for ‖r‖ = 1.

        Within the bases, for any x and e = r − Cx, ⟨r, C⁻¹r⟩ is 2⟨r, x⟩ − ⟨x, Cx⟩ + ⟨e, C⁻¹e⟩.
        """
        assert self._slope is not None
        N = len(self._found)
        core, *asides = self._slopes(self._slope)
        x = conjugate_gradients(lambda X: N * X - self._curvature.of(X), core, RESIDUAL, SOLVES)
        image = N * x - self._curvature.of(x)
        left = core - image
        force, shift, own = (float(part.sum()) for part in ((2 * core - image) * x, x * x, core * core))
        for side, aside in zip(self._sides, asides, strict=True):
            solved = torch.linalg.solve(side, aside)
            force += float((aside * solved).sum())
            shift += float((solved * solved).sum())
            own += float((aside * aside).sum())
        rest = max(1 - own, 0.0)  # where C is N
        return _Pull(force + rest / N, shift + rest / N**2, float((left * left).sum()) ** 0.5)


def _looks(curvature: Curvature, N: int, bases: Bases) -> Iterator[_Look]:
    """Bound the smallest value on cores p × q better and better, by Lanczos from a random start."""
    shape = bases.U.shape[1], bases.V.shape[1]
    here = gaussian(*shape, like=bases.U)
    here /= torch.linalg.matrix_norm(here)
    before, beta = torch.zeros_like(here), 0.0
    diagonal: list[float] = []
    beside: list[float] = []
    exhausted = False
    while not exhausted:
        image = curvature.of(here).sub_(before, alpha=beta)
        diagonal.append(float(torch.sum(image * here)))
        image.sub_(here, alpha=diagonal[-1])
        beta, k = float(torch.sum(image * image)) ** 0.5, len(diagonal)
        # not after as many steps as there are directions: rounding may have hidden some
        exhausted = beta < 1e-6 * N
        if k % CHECK == 0 or exhausted:
            T = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
            T += torch.diag(torch.tensor(beside, dtype=torch.float64), -1)
            largest = float(torch.linalg.eigvalsh(T)[-1])
            most = _most(diagonal, [*beside, max(beta, 1e-30)], largest, N, math.prod(shape))
            yield _Look(k, N - largest, N - most, exhausted)
        beside.append(beta)
        before, here = here, image.div_(beta)


def _most(diagonal: Sequence[float], beside: Sequence[float], largest: float, N: int, order: int) -> float:
    """Return what no eigenvalue exceeds, given the tridiagonal matrix of Lanczos and its largest value.

    An eigenvalue λ has in the random start a weight, of which no more than 1/Σp_j(λ)² is compatible with that
    matrix, p_j its orthonormal polynomials. It is less than DOUBT² π/2d with a probability of at most DOUBT
    (van Dorsselaer, Hochstenbach and van der Vorst 2000).
    """
    least = DOUBT**2 * math.pi / (2 * order)
    low, high = largest, float(N)  # which it never exceeds
    while high - low > CLOSELY * (N - high):
        middle = (low + high) / 2
        p, before, total, last = 1.0, 0.0, 1.0, 0.0
        for own, following in zip(diagonal, beside, strict=True):
            before, p = p, ((middle - own) * p - last * before) / following
            last = following
            total += p * p
            if total * least > 1:
                break
        low, high = (low, middle) if total * least > 1 else (middle, high)
        if N - low < FLAT / 2:
            break
    return high
