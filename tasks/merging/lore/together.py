"""Solving many small problems together, such as the cores of adapters: each is proven as any other is."""

from collections.abc import Callable, Sequence
from itertools import count
from typing import NamedTuple

import torch
from torch.nn.functional import pad

from tasks.merging.lore.algebra import ROUNDING, Factors, Norms, Spanned, Tensor, gaussian, inner_each
from tasks.merging.lore.certificate import Residuals, distance, if_complete, limit, met, radius, reach
from tasks.merging.lore.curvature import Curvature
from tasks.merging.lore.lanczos import looks
from tasks.merging.lore.penalty import Deviations, Penalty, Scale, Values, values
from tasks.merging.lore.problem import FLAT, Iterate, Near, Proof, Sharpness, Solution, solution_of
from tasks.merging.lore.small import Pass, eigenpairs, energies, passes
from tasks.merging.lore.steering import CUT
from tasks.merging.lore.uniqueness import SLIP, STEPS, pulls, sharpness, still_sharpness

MOST_PASSES = 40
"""What needs more is solved alone."""
WORTH, WORTH_NEXT = 8, 4
"""Times the step that is asked for before a proof is tried, which costs more than a pass; and how many times
that after one that failed."""


class Small(NamedTuple):
    """The problem of one matrix of few rows and columns."""

    B: Tensor
    """N × m × n deviations, float64, which sum to zero; of equally many checkpoints in all problems."""
    scale: Scale
    goal: Near


class _Known(NamedTuple):
    """What the spectra of one problem's deviations tell, and what is asked."""

    penalty: Penalty
    edge: float
    total: float
    goal: float
    shape: Sequence[int]


def solve_together(problems: Sequence[Small], on_pass: Callable[[int], None]) -> list[Solution | None]:
    """Return what `solve` returns, for the nuclear norm and three checkpoints or more.

    None where that takes more passes than usual: `solve` knows more ways. `on_pass` is called before each
    pass with its number, and may raise.
    """
    B = _stacked([problem.B for problem in problems])
    pairs = eigenpairs(B)
    known = [
        _look(problem, own, total)
        for problem, own, total in zip(
            problems, values(pairs.sigma), energies(B).flatten().tolist(), strict=True
        )
    ]
    mu, goal = (
        B.new_tensor(own)[:, None, None]
        for own in zip(*((one.penalty.mu, one.goal) for one in known), strict=True)
    )
    solved: list[Solution | None] = [None] * len(problems)
    worth = torch.full_like(mu, WORTH)
    steps = passes(B, pairs, mu)
    on_pass(1)
    now = next(steps)
    for number in count(1):
        own, length = now.problem, inner_each(now.step, now.step).sqrt()
        near = (now.level == mu[own]) & (length * worth[own] <= goal[own])
        going = torch.ones_like(own, dtype=torch.bool)
        tried = near.flatten().nonzero().flatten()
        if len(tried):
            which = own[tried]
            found = _proven(now.some(tried), B[which], [known[i] for i in which.tolist()], number)
            for k, i, solution in zip(tried.tolist(), which.tolist(), found, strict=True):
                going[k], solved[i] = solution is None, solution
            worth[which] *= WORTH_NEXT
        if number == MOST_PASSES or not going.any():
            break
        on_pass(number + 1)
        now = steps.send(going)
    return solved


def _stacked(parts: Sequence[Tensor]) -> Tensor:
    """Return matrices as one array P × N × m × n, rows and columns of zeros added, which change nothing."""
    m, n = (max(part.shape[side] for part in parts) for side in (1, 2))
    return torch.stack([pad(part, (0, n - part.shape[2], 0, m - part.shape[1])) for part in parts])


def _look(problem: Small, sigma: Sequence[Values], total: float) -> _Known:
    penalty, edge = problem.scale.penalty(Deviations(sigma, total))
    return _Known(penalty, edge, total, problem.goal.distance, problem.B.shape[1:])


def _proven(now: Pass, B: Tensor, known: Sequence[_Known], number: int) -> list[Solution | None]:
    """Return every problem's solution, where it is proven near enough."""
    mu = now.level
    reaches = [reach(CUT, one.penalty.mu, one.goal) for one in known]
    left, complete = _residuals(now, B)
    sharps = _sharps(now, mu, known, reaches, [sum(own.active) for own in left])
    found = []
    for k, (one, sharp, own) in enumerate(zip(known, sharps, left, strict=True)):
        here = _iterate(now, k, one, number)
        proof = if_complete(one.total, here, sharp, own)
        enough = complete[k] and met(proof, Near(one.goal))
        found.append(_solution(here, one, proof) if enough else None)
    return found


def _residuals(now: Pass, B: Tensor) -> tuple[list[Residuals], list[bool]]:
    """Return how far every A_i is from a matrix with exactly its triplets; and whether none is missing."""
    U, sigma, V, spectra = now.found
    eps, n = torch.finfo(B.dtype).eps, B.shape[-1]
    A, size = B - now.z[:, None], torch.linalg.matrix_norm(B) + torch.linalg.matrix_norm(now.z)[:, None]
    columns = torch.hypot(
        torch.linalg.vector_norm(A @ V - U * sigma[..., None, :], dim=-2),
        torch.linalg.vector_norm(A.mT @ U - V * sigma[..., None, :], dim=-2),
    )
    active, every = (
        torch.linalg.vector_norm(columns * (sigma > least), dim=-1) + ROUNDING * eps * size
        for least in (now.level - radius(CUT, 1.0) * now.level, CUT * now.level)
    )
    found = (sigma > CUT * now.level).sum(-1, keepdim=True)
    beyond = pad(spectra, (0, 1)).gather(-1, found) ** 2 + ROUNDING * n * eps * spectra[..., :1] ** 2
    enough = (beyond[..., 0] < (limit(CUT, 1.0) * now.level[..., 0]) ** 2).all(1)
    enough &= every.amax(1) <= radius(CUT, 1.0) * now.level.flatten()
    parts = zip(active.tolist(), every.tolist(), strict=True)
    return [Residuals(*own) for own in parts], enough.tolist()


def _sharps(
    now: Pass, mu: Tensor, known: Sequence[_Known], reaches: Sequence[float], residuals: Sequence[float]
) -> list[Sharpness]:
    """Return how each fit curves, as sharply as its proof asks, or as can be told."""
    N = now.found.sigma.shape[1]
    unit = (mu - mu.new_tensor(reaches)[:, None, None]) * (1 - SLIP)
    rest = (limit(CUT, 1.0) * mu / unit).float()
    found = now.found.above(CUT * mu, unit)
    sizes = (N * inner_each(now.step, now.step).sqrt()).flatten().tolist()
    still = (~(found.sigma > 1).any(-1)).sum(-1).tolist()
    sharps = [
        still_sharpness(max(idle, 1.0), size, within)
        for idle, size, within in zip(still, sizes, reaches, strict=True)
    ]
    going = [k for k, idle in enumerate(still) if not idle]
    if not going:
        return sharps
    curvature = Curvature(
        found, (1.0, 1.0), lambda sigma: (sigma - 1).clamp(min=0) / torch.maximum(sigma - rest, 1 - rest)
    )[torch.tensor(going)]
    steps = now.step[going]
    lengths = torch.linalg.matrix_norm(steps, keepdim=True).clamp(min=torch.finfo(mu.dtype).tiny)
    pulled = dict(zip(going, pulls(curvature, N, (steps / lengths).float()), strict=True))
    start = gaussian(*now.step.shape[1:], like=found.U)
    search = looks(curvature, N, start.expand(len(going), *start.shape))
    told = next(search)
    while True:
        kept = []
        for j, (k, look) in enumerate(zip(going, told, strict=True)):

            def at(least: float, k: int = k) -> Sharpness:
                return sharpness(least, N, sizes[k], lambda: pulled[k], reaches[k])

            def suffices(sharp: Sharpness, k: int = k) -> bool:
                return distance(sharp, residuals[k]) <= known[k].goal

            sharps[k] = at(look.bound)
            ended = look.exhausted or look.steps >= STEPS or look.estimate < FLAT
            if not (ended or suffices(at(look.bound)) or not suffices(at(look.estimate))):
                kept.append(j)
        if not kept:
            return sharps
        going = [going[j] for j in kept]
        told = search.send(kept)


def _iterate(now: Pass, k: int, known: _Known, number: int) -> Iterate:
    """Return one problem's iterate."""
    mu, z = known.penalty.mu, now.z[k]
    step, like = now.step[k], torch.eye(z.shape[1], dtype=z.dtype)
    leading = now.found.of(k, CUT * mu)
    norms = Norms(float((z * z).sum()), float((step * step).sum()) ** 0.5, float((step * z).sum()))
    deltas = [part.thresholded(mu) for part in leading]
    return Iterate(Spanned(z, like, like), leading, deltas, norms, mu, CUT, number)


def _solution(here: Iterate, known: _Known, proof: Proof) -> Solution:
    m, n = known.shape
    own = [Factors(U[:m], sigma, V[:n]) for U, sigma, V in here.deltas]
    return solution_of(here._replace(deltas=own), known.penalty, known.edge, proof, "newton")
