"""LoRE as a method: what is solved, how the task vectors are combined, what was found."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from tasks.base.measures import Averaged, LoreMeasures
from tasks.merging.block import Block
from tasks.merging.combine import elected
from tasks.merging.lore_cores import core_demands, solve_cores
from tasks.merging.lore_question import (
    AroundMean,
    are_identical,
    beyond,
    is_averaged,
    lam_of,
    question,
    spread,
)
from tasks.merging.program import FamilyProgram, Merged, Program, Settings, without_measuring
from tasks.merging.solving import MatrixProblem, OutOfTime
from tasks.parameters.merge import LoreParams, MergeParams, value_for

if TYPE_CHECKING:
    from torch import Tensor

    from tasks.merging.lore.algebra import Factors
    from tasks.merging.lore.problem import Near, Solution

SPECTRUM_SHOWN = 64
"""Singular values of each task vector that are kept."""
NOTHING = ("symmetric", "zero")
"""What the solver calls a matrix without task vectors."""


def program(settings: Settings) -> Program:
    """θ* = θ_0 + λτ, matrix by matrix; vectors are averaged (Liu et al. 2025, Algorithm 1)."""
    return without_measuring(lambda block: next(merge_variants(block, [settings])))


def family(variants: Sequence[Settings]) -> FamilyProgram:
    """Merge variants that differ in λ, rank or combination from one solution; only μ and its like cost."""
    return lambda block: merge_variants(block, variants)
    yield  # makes this a generator


def on_cores(variants: Sequence[Settings]) -> FamilyProgram:
    """Merge the cores of low-rank matrices: alone, calls would take the time."""
    results = yield lambda block: core_demands(block, variants)
    cores = {tensor: own for tensor, [own] in results.items()}
    solved = solve_cores(list(cores.values()), variants)
    return lambda block: merge_variants(block, variants, cores[block.tensor].spread, solved)


def trim(delta: "Tensor", density: float) -> "Tensor":
    """Keep the share of largest magnitude of a whole matrix, equals by lower index; the rest becomes 0."""
    import torch

    order = delta.abs().reshape(-1).argsort(descending=True, stable=True)
    kept = order[: round(density * order.numel())]
    trimmed = torch.zeros_like(delta).reshape(-1)
    trimmed[kept] = delta.reshape(-1)[kept]
    return trimmed.reshape(delta.shape)


def merge_variants(
    block: Block,
    variants: Sequence[Settings],
    own: AroundMean | None = None,
    solved: "Sequence[Mapping[MatrixProblem, Solution]]" = (),
) -> Iterator[Merged]:
    """Yield the merge of each variant, solving once for all that ask the same.

    `own` where it is known; `solved` is what is solved already, by variant.
    """
    solutions: dict[MatrixProblem, Solution] = {}
    for i, settings in enumerate(variants):
        params = settings.at(block.tensor)
        if own is None and are_identical(block):
            yield block.thetas[0], Averaged(identical=True)  # the mean of equals may be rounded
            continue
        if is_averaged(block, settings, params):
            yield own.as_given(own.mean) if own else block.mean, Averaged(identical=False)
            continue
        own = own or spread(block, settings)
        problem, goal, place = question(block, own, settings, params)
        if problem not in solutions and (known := settings.solving.take(problem)):
            solutions[problem] = known
        solution = (solved[i].get(problem) if solved else None) or solutions.get(problem)
        if solution is None:
            try:
                with settings.solving.watched(block.tensor, params.lore.time_limit) as on_pass:
                    solution = _solve(own, params.lore, goal, settings.steps, on_pass)
            except OutOfTime:
                yield own.as_given(own.mean), Averaged(identical=False, out_of_time=True)
                continue
            solutions[problem] = solution
            settings.solving.keep(problem, solution)
        # after the last variant nobody needs the deviations: their memory takes its merge
        room = own.B[0] if settings is variants[-1] else None
        merged, measures = _finish(own, solution, params, place, room)
        yield own.as_given(merged), measures


def _solve(
    own: AroundMean,
    lore: LoreParams,
    tolerance: "float | Near",
    steps: Sequence[int],
    on_pass: Callable[[int], None],
) -> "Solution":
    from tasks.merging.lore.penalty import Scale
    from tasks.merging.lore.solve import solve

    anchor = None if lore.anchor == "mean" else list(steps).index(lore.anchor)
    scale = Scale(lore.mu, lore.mu_scale, lore.penalty, own.shape)
    return solve(own.B, scale, tolerance, lore.passes, anchor, on_pass=on_pass)


def _finish(
    own: AroundMean, solution: "Solution", params: MergeParams, place: float, room: "Tensor | None"
) -> tuple["Tensor", Averaged | LoreMeasures]:
    """Return θ* = θ_0 + λτ, θ_0 = mean − S/N refreshed from the task vectors as they were cut.

    It is written to `room`, where there is some.
    """
    import torch

    from tasks.merging.lore.algebra import add_up, inner

    mean, energies, shape = own.mean, own.energies, own.shape
    if solution.solver in NOTHING:
        return mean, Averaged(identical=False)
    N, rank = len(energies), max(1, round(params.lore.rank_ratio * min(shape)))
    deltas = [delta.truncated(rank).to(mean.dtype) for delta in solution.deltas]
    S = add_up(deltas)
    if params.lore.combine == "ties":
        tau = elected(
            [1.0] * N,
            [trim(delta.matrix(), value_for(params.ties.density, i)) for i, delta in enumerate(deltas)],
            params,
        )
        merged = torch.addmm(mean + lam_of(params, N) * tau, S.U * (S.sigma / -N), S.V.T)
        moved = float(torch.linalg.matrix_norm(merged - mean))
    else:
        merged = torch.addmm(mean, S.U * (S.sigma * beyond(params, N)), S.V.T, out=room)
        moved = abs(beyond(params, N)) * max(inner(S, S), 0.0) ** 0.5
    whole = all(kept.rank == delta.rank for kept, delta in zip(deltas, solution.deltas, strict=True))
    # an error of θ_0 is multiplied by what λ multiplies mean − θ_0 by
    error = N * abs(beyond(params, N)) * solution.error / math.prod(shape) ** 0.5 / place
    proven = whole and params.lore.combine != "ties" and math.isfinite(error)
    known = _measures(solution, deltas, S, energies, moved, params.lore.mu, shape)
    apart = moved / math.prod(shape) ** 0.5 / place
    return merged, known.model_copy(update={"error": error if proven else None, "places_from_mean": apart})


def _measures(
    solution: "Solution",
    deltas: Sequence["Factors"],
    S: "Factors",
    energies: Sequence[float],
    moved: float,
    mu: float,
    shape: tuple[int, int],
) -> LoreMeasures:
    from tasks.merging.lore.algebra import inner

    N, squares = len(deltas), [float(delta.sigma.double().square().sum()) for delta in deltas]
    total = max(inner(S, S), 0.0)
    return LoreMeasures(
        shape=shape,
        solver=solution.solver,
        passes=solution.passes,
        gap=solution.gap,
        mu=mu,
        threshold=max(solution.thresholds),
        edge=solution.edge,
        active=tuple(delta.rank for delta in solution.deltas),
        ranks=tuple(delta.rank for delta in deltas),
        effective_ranks=tuple(round(_effective_rank(delta.sigma), 2) for delta in deltas),
        share=total**0.5 / max(sum(square**0.5 for square in squares), 1e-300),
        explained=sum(squares) / (sum(energies) + total / N),
        from_mean=moved * N / sum(energy**0.5 for energy in energies),
        spectra=tuple(
            tuple(float(f"{sigma:.4g}") for sigma in spectrum[:SPECTRUM_SHOWN])
            for spectrum in solution.spectra
        ),
    )


def _effective_rank(sigma: "Tensor") -> float:
    """Return the exponential of the entropy of the singular values' shares (Roy and Vetterli 2007)."""
    if not sigma.numel():
        return 0.0
    shares = sigma.double() / sigma.double().sum()
    return math.exp(-float((shares * shares.log()).sum()))
