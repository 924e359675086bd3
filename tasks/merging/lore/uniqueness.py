"""How sharply the minimum is determined: a bound on the curvature of the fit (docs/mathematics.md, fact 5).

The fit curves in direction H by ⟨H, N·H − ΣK_i(H)⟩. The smallest value for ‖H‖ = 1 is N where no singular
value exceeds μ, and 0 where all checkpoints share a direction in which the minimiser is not unique.
"""

import math
from collections.abc import Sequence

import torch

from tasks.merging.lore.algebra import Factors, Tensor, gaussian
from tasks.merging.lore.curvature import Bases, Curvature, conjugate_gradients, joint
from tasks.merging.lore.problem import FLAT, Sharpness

DOUBT = 1e-6
"""The probability, over the random start, that the bound is wrong."""
STEPS, CHECK = 150, 10
"""Of Lanczos, and how often the bound is looked at."""
ENOUGH = 0.7
"""Share of the estimate at which the bound is good enough."""
GUESSED, SETTLED = 30, 0.9
"""Steps of Lanczos for a guess, or fewer where ten steps have taken less than a tenth off it."""
RESIDUAL, SOLVES = 0.03, 40
"""Of conjugate gradients, in units of the slope, and their steps."""
SLACK, ROUNDING = 0.01, 8
"""For rounding: of the force, a share; of the curvature, in units of ε and its largest value."""


def curvature_bound(found: Sequence[Factors], mu: float, rest: float, guess: bool = False) -> float:
    """Return a lower bound on the curvature, given the leading triplets; no other σ exceeds `rest` < μ.

    Below FLAT it may be 0 right away. A guess is no bound, and takes a fraction of the time.
    """
    return sharpness(found, mu, rest, None, guess).curvature


def sharpness(
    found: Sequence[Factors], mu: float, rest: float, slope: Tensor | None, guess: bool = False
) -> Sharpness:
    """Return bounds on the curvature and on the force of a slope (m × n), as `curvature_bound` does."""
    size = float(torch.linalg.matrix_norm(slope)) if slope is not None else 0.0
    active = [part.above(mu) for part in found]
    still = sum(part.rank == 0 for part in active)
    if still:  # K_i = 0 for each of these
        return Sharpness(float(still), size / still**0.5)

    def outside(sigma: Tensor) -> Tensor:
        # whatever the other singular value is, up to `rest`
        return (sigma - mu).clamp(min=0) / (sigma - rest).clamp(min=mu - rest)

    N, bases = len(found), joint(found, [])
    # directions with one side outside of all that leads
    beside = N - max(_norm([part[side] * outside(part.sigma).sqrt() for part in active]) for side in (0, 2))
    inner = Curvature(found, (mu, mu), bases, outside)
    rounding = ROUNDING * N * torch.finfo(bases.U.dtype).eps
    least = max(min(_inside(inner, N, bases, guess), beside) - rounding, 0.0)
    if slope is None or not least:
        return Sharpness(least, math.inf)
    core = bases.core(slope)
    own = float((core * core).sum())
    square = _squared_force(inner, N, core, least) + max(size**2 - own, 0.0) / beside
    return Sharpness(least, (1 + SLACK) * square**0.5)


def _squared_force(curvature: Curvature, N: int, core: Tensor, least: float) -> float:
    """Return an upper bound on ⟨r, C⁻¹r⟩ within the bases.

    For any x and e = r − Cx it is 2⟨r, x⟩ − ⟨x, Cx⟩ + ⟨e, C⁻¹e⟩, of which the last is ‖e‖²/c at most.
    """
    x = conjugate_gradients(lambda X: N * X - curvature.of(X), core, RESIDUAL, SOLVES)
    image = N * x - curvature.of(x)
    left = core - image
    return float(((2 * core - image) * x).sum()) + float((left * left).sum()) / least


def _norm(parts: Sequence[Tensor]) -> float:
    """Return ‖Σ X_iX_iᵀ‖_2."""
    X = torch.cat(list(parts), 1)
    return float(torch.linalg.eigvalsh(X.T @ X)[-1])


def _inside(curvature: Curvature, N: int, bases: Bases, guess: bool) -> float:
    """Bound the smallest value on cores p × q, by Lanczos from a random start.

    Kuczyński and Woźniakowski 1992: after k steps the largest eigenvalue of a matrix of order d is more than
    ε of itself above the estimate with a probability of at most 1.648 √d exp(−√ε (2k − 1)).
    """
    shape = bases.U.shape[1], bases.V.shape[1]
    here = gaussian(*shape, like=bases.U)
    here /= torch.linalg.matrix_norm(here)
    before, beta = torch.zeros_like(here), 0.0
    diagonal: list[float] = []
    beside: list[float] = []
    bound, estimate, doubt = 0.0, math.inf, math.log(1.648 * math.sqrt(math.prod(shape)) / DOUBT)
    for k in range(1, (GUESSED if guess else STEPS) + 1):
        image = curvature.of(here) - beta * before
        diagonal.append(float((image * here).sum()))
        image -= diagonal[-1] * here
        beta = float(torch.linalg.matrix_norm(image))
        exhausted = beta < 1e-6 * N or k == math.prod(shape)
        if k % CHECK == 0 or exhausted:
            T = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
            T += torch.diag(torch.tensor(beside, dtype=torch.float64), -1)
            largest = float(torch.linalg.eigvalsh(T)[-1])
            missing = 0.0 if exhausted else (doubt / (2 * k - 1)) ** 2
            before_it, estimate = estimate, N - largest
            if guess and (exhausted or k == GUESSED or estimate > SETTLED * before_it):
                return estimate
            bound = N - largest / (1 - missing) if missing < 1 else 0.0
            # the estimate is never below the curvature
            if exhausted or bound >= ENOUGH * estimate or estimate < FLAT:
                break
        beside.append(beta)
        before, here = here, image / beta
    return bound
