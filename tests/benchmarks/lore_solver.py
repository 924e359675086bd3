"""LoRE's solver on single matrices beside the naive loop of torch.linalg.svd: one process, the same two threads."""

from functools import partial
from typing import NamedTuple
from unittest import mock

import torch
from torch import Tensor

from tasks.merging.lore import newton
from tasks.merging.lore.algebra import Factors, add_up, each
from tasks.merging.lore.penalty import Scale
from tasks.merging.lore.problem import Solution
from tasks.merging.lore.solve import solve
from tasks.merging.lore.triplets import Sought
from tests.benchmarks.algorithm_1 import PASSES, algorithm_1, by_svd, ten_passes
from tests.benchmarks.measure import digits, judged, say, table
from tests.benchmarks.spiked import deviations
from tests.benchmarks.stopwatch import duel, two_threads

MU = 1.05
"""Noise edges."""
TOLERANCE, EXACT = 1e-4, 1e-9
SVT_GOALS = (40, 200, 400)
"""At one, two and four times the side."""
SVT_ERROR, S_ERROR = 3e-3, 1e-3
CONVERGED_GOALS = {3: 50, 5: 30, 8: 30}
ANCHORED_GOAL = 15
REPEATS = 9
"""Of one warm thresholding, which takes milliseconds, in every turn."""


class Step(NamedTuple):
    """A thresholding in the midst of a solution."""

    A: Tensor
    """B_i − z, m × n"""
    start: Factors
    """Its triplets as the pass before left them: a subspace n × k."""
    sought: Sought
    mu: float


@two_threads()
def thresholding(side: int, runs: int) -> str:
    """Measure the last pass over one of three matrices against gesdd of the same matrix."""
    cases = zip((1, 2, 4), SVT_GOALS, strict=True)
    head = ["matrix", "columns", "warm ms", "gesdd s", "times as fast", "goal", "met", "error", "goal"]
    return table(head, [_thresholding(scale * side, goal, max(1, runs // scale**2)) for scale, goal in cases])


def _thresholding(n: int, goal: float, turns: int) -> list[str]:
    say(f"thresholding: {n}²")
    step = last_step(deviations(3, n, n))
    theirs: list[Factors] = []
    found = duel(
        partial(warm, step), lambda: theirs.append(cut(step.A, step.mu)), turns=turns, repeats=REPEATS
    )
    return [
        *[f"{n}²", f"{step.start.rank}", f"{1e3 * found.ours:.1f}", *digits(2, found.theirs)],
        *judged(found.ratio, "≥", goal, 0),
        *[f"{_relative(warm(step).matrix(), theirs[0].matrix()):.1e}", f"≤ {SVT_ERROR:g}"],
    ]


def last_step(B: Tensor) -> Step:
    """Return what the last pass of a solution started from, for the last matrix."""
    with mock.patch.object(newton, "triplets_above", wraps=newton.triplets_above) as triplets:
        found = solve(B, _noise_edges(MU, B), TOLERANCE)
    A, sought, [start] = triplets.call_args.args
    return Step(next(each(A)), start, sought, found.penalty.mu)


def warm(step: Step) -> Factors:
    """Take μ off the singular values of B − z, from the subspace of the pass before."""
    [found] = newton.triplets_above(step.A, step.sought, [step.start])
    return found.thresholded(step.mu)


def cut(A: Tensor, mu: float) -> Factors:
    """Take μ off the singular values, by a full decomposition, and leave the factors as they are."""
    U, sigma, Vt = torch.linalg.svd(A, full_matrices=False)
    r = int((sigma > mu).sum())
    return Factors(U[:, :r], sigma[:r] - mu, Vt[:r].T)


@two_threads()
def converged(side: int, runs: int) -> str:
    """Measure whole solutions against ten naive passes, and both against float64."""
    cases = ((3, side), (3, 2 * side), (5, side), (8, side))
    head = ["N", "matrix", "solver", "passes", "Loreline s", "ten naive passes s", "times as fast", "goal"]
    head += ["met", "gap", "S error", "goal", "naive S error"]
    return table(head, [_converged(N, n, runs) for N, n in cases])


def _converged(N: int, n: int, runs: int) -> list[str]:
    say(f"converged: N = {N}, {n}²")
    B = deviations(N, n, n)
    ours: list[Solution] = []
    theirs: list[Tensor] = []
    found = duel(
        lambda: ours.append(solve(B, _noise_edges(MU, B), TOLERANCE)),
        lambda: theirs.append(ten_passes(B, ours[0].penalty.mu)),
        repeats=runs,
    )
    solution, naive = ours[0], theirs[0]
    exact = _total(solve(B.double(), _absolute(solution.penalty.mu, B), EXACT))
    return [
        *[f"{N}", f"{n}²", solution.solver, f"{solution.passes}", *digits(3, found.ours)],
        *[*digits(1, found.theirs), *judged(found.ratio, "≥", CONVERGED_GOALS[N], 0)],
        *[f"{solution.gap:.1e}", f"{_relative(_total(solution), exact):.1e}", f"≤ {S_ERROR:g}"],
        f"{_relative(naive, exact):.1e}",
    ]


@two_threads()
def anchored(side: int, runs: int) -> str:
    """Measure two matrices, one of which is the anchor, against ten naive passes, of which one is measured."""
    n = 2 * side
    B = deviations(2, n, n)
    ours = partial(solve, B, _noise_edges(MU, B), TOLERANCE, anchor=0)
    solution = ours()
    mu = solution.thresholds[1] / 2
    found = duel(ours, lambda: next(algorithm_1(B, mu)), repeats=runs)
    off = _relative(_total(solution), by_svd(B[1] - B[0], 2 * mu))
    row = [
        *[f"{n}²", *digits(3, found.ours), *digits(1, PASSES * found.theirs)],
        *[*judged(PASSES * found.ratio, "≥", ANCHORED_GOAL, 0), f"{off:.1e}"],
    ]
    head = ["matrix", "Loreline s", "ten naive passes s", "times as fast", "goal", "met", "S error"]
    return table(head, [row])


def _noise_edges(mu: float, B: Tensor) -> Scale:
    return Scale(mu, "noise_edge", "nuclear", (B.shape[1], B.shape[2]))


def _absolute(mu: float, B: Tensor) -> Scale:
    return _noise_edges(mu, B)._replace(unit="absolute")


def _total(solution: Solution) -> Tensor:
    return add_up(solution.deltas).matrix()


def _relative(found: Tensor, exact: Tensor) -> float:
    difference = found.double() - exact.double()
    return float(torch.linalg.matrix_norm(difference) / torch.linalg.matrix_norm(exact.double()))
