"""LoRE as a method: what is solved, how the task vectors are combined, what was found."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from tasks.base.measures import Averaged, LoreMeasures
from tasks.merging.arrays import Array
from tasks.merging.block import Block
from tasks.merging.combine import elected
from tasks.merging.inner_products import dot
from tasks.merging.lore_notes import beyond, lam_of
from tasks.merging.program import FamilyProgram, Merged, Program, Settings, without_measuring
from tasks.merging.roles import is_embedding, is_head
from tasks.merging.solving import MatrixProblem, OutOfTime
from tasks.parameters.merge import LoreParams, MergeParams, value_for

if TYPE_CHECKING:
    from torch import Tensor

    from tasks.merging.lore.algebra import Factors
    from tasks.merging.lore.problem import Near, Solution

DIGITS = {"F64": 53, "F32": 24, "F16": 11, "BF16": 8}
"""Binary digits of a number."""
SPECTRUM_SHOWN = 64
"""Singular values of each task vector that are kept."""
LAST_PLACES, FINE = 0.5, 256
"""Of tolerance auto: half a last place, or this fraction of how far the checkpoints lie apart: what is finer
drowns in their noise."""
NOTHING = ("symmetric", "zero")
"""What the solver calls a matrix without task vectors."""


def program(settings: Settings) -> Program:
    """θ* = θ_0 + λτ, matrix by matrix; vectors are averaged (Liu et al. 2025, Algorithm 1)."""
    return without_measuring(lambda block: next(_merged(block, [settings])))


def family(variants: Sequence[Settings]) -> FamilyProgram:
    """Merge variants that differ in λ, rank or combination from one solution; only μ and its like cost."""
    return lambda block: _merged(block, variants)
    yield  # makes this a generator


def trim(delta: "Tensor", density: float) -> "Tensor":
    """Keep the share of largest magnitude of a whole matrix, equals by lower index; the rest becomes 0."""
    import torch

    order = delta.abs().reshape(-1).argsort(descending=True, stable=True)
    kept = order[: round(density * order.numel())]
    trimmed = torch.zeros_like(delta).reshape(-1)
    trimmed[kept] = delta.reshape(-1)[kept]
    return trimmed.reshape(delta.shape)


def _merged(block: Block, variants: Sequence[Settings]) -> Iterator[Merged]:
    """Yield the merge of each variant, solving once for all that ask the same."""
    import torch

    from tasks.merging.lore.algebra import energy

    solutions: dict[MatrixProblem, Solution] = {}
    mean: Array = None
    B: Tensor | None = None
    for settings in variants:
        params = settings.at(block.tensor)
        if B is None and _identical(block):
            yield block.thetas[0], Averaged(identical=True)  # the mean of equals may be rounded
            continue
        if _averaged(block, settings, params):
            yield block.mean if mean is None else mean, Averaged(identical=False)
            continue
        if B is None:
            middle, B = deviations(block)
            mean = middle if isinstance(block.thetas, torch.Tensor) else middle.numpy()
            energies = [energy(b) for b in B]
            shape = _full_shape(settings.shapes[block.tensor], B)
        size = (dot(mean, mean) / math.prod(shape)) ** 0.5
        place = last_place(settings.dtypes.get(block.tensor, "F32"), size)
        reach = max(1.0, abs(settings.count * beyond(params, settings.count)))
        problem = MatrixProblem(block.tensor, block.matrix, tuple(B.shape), _asked(params.lore, reach))
        if problem not in solutions and (known := settings.solving.solved.pop(problem, None)):
            solutions[problem] = known
        if problem not in solutions:
            goal = _tolerance(params.lore, energies, place * math.prod(shape) ** 0.5, reach)
            try:
                with settings.solving.watched(block.tensor, params.lore.time_limit) as on_pass:
                    solutions[problem] = _solve(B, params.lore, goal, settings.steps, shape, on_pass)
            except OutOfTime:
                yield mean, Averaged(identical=False, out_of_time=True)
                continue
            settings.solving.keep(problem, solutions[problem])
        # after the last variant nobody needs the deviations: their memory takes its merge
        room = B[0] if settings is variants[-1] else None
        merged, measures = _finish(middle, energies, solutions[problem], params, shape, place, room)
        yield merged if isinstance(block.thetas, torch.Tensor) else merged.numpy(), measures


def _identical(block: Block) -> bool:
    """Tell whether the checkpoints share this tensor, as they do where a layer is frozen."""
    first, *others = block.thetas
    return all(bool((theta[:1] == first[:1]).all()) and bool((theta == first).all()) for theta in others)


def deviations(block: Block) -> tuple["Tensor", "Tensor"]:
    """Return mean(θ), and a whole matrix's θ_i as B_i = θ_i − mean(θ), N × m × n, where they lie.

    There is no room for both; a few rows at a time, which caches hold. The B_i sum to zero but for rounding
    of their own size.
    """
    import torch

    from tasks.merging.lore.algebra import row_blocks

    stacked = hasattr(block.thetas, "shape")
    thetas = block.thetas if stacked else torch.stack([torch.as_tensor(theta) for theta in block.thetas])
    B = torch.as_tensor(thetas)
    mean = B.new_empty(B.shape[1:])
    for rows in row_blocks(mean):
        mean[rows] = torch.as_tensor(block.part(rows.start, rows.stop).mean)
        part = B[:, rows].sub_(mean[rows])
        part.sub_(part.mean(0))  # the mean of the weights was rounded to their size
    return mean, B


def _averaged(block: Block, settings: Settings, params: MergeParams) -> bool:
    shape = settings.shapes[block.tensor]
    if len(shape) < 2 or math.prod(shape) == 0:
        return True
    return params.lore.embeddings == "average" and (
        is_embedding(block.tensor, shape) or is_head(block.tensor, shape)
    )


def _asked(lore: LoreParams, reach: float) -> tuple[object, ...]:
    """Return what decides the task vectors, before they are cut and combined."""
    accuracy = reach if lore.tolerance == "auto" else lore.tolerance
    return lore.mu, lore.mu_scale, lore.penalty, lore.anchor, lore.tolerance, accuracy, lore.passes


def last_place(dtype: str, magnitude: float) -> float:
    """Return one unit in the last place of a number of this size, as it is stored."""
    return math.ldexp(1.0, math.frexp(magnitude)[1] - DIGITS[dtype])


def _tolerance(lore: LoreParams, energies: Sequence[float], rounding: float, reach: float) -> "float | Near":
    """Return how near to the exact θ_0 is near enough; what λ multiplies it by, `reach`, is at least 1.

    `rounding` is one last place of every element, in the Frobenius norm. At least 1 so that all λ up to 2/N,
    with the average in the middle, share one solution.
    """
    from tasks.merging.lore.problem import Near

    if lore.tolerance != "auto":
        return lore.tolerance
    deviation = (sum(energies) / len(energies)) ** 0.5
    return Near(max(LAST_PLACES * rounding, deviation / FINE) / reach)


def _full_shape(tensor: tuple[int, ...], B: "Tensor") -> tuple[int, int]:
    """Return the shape of the matrix, of which an adapter's block is only the core."""
    return (tensor[0], tensor[1]) if len(tensor) == 2 else (B.shape[1], B.shape[2])


def _solve(
    B: "Tensor",
    lore: LoreParams,
    tolerance: "float | Near",
    steps: Sequence[int],
    shape: tuple[int, int],
    on_pass: Callable[[int], None],
) -> "Solution":
    from tasks.merging.lore.penalty import Scale
    from tasks.merging.lore.solve import solve

    anchor = None if lore.anchor == "mean" else list(steps).index(lore.anchor)
    scale = Scale(lore.mu, lore.mu_scale, lore.penalty, shape)
    return solve(B, scale, tolerance, lore.passes, anchor, on_pass=on_pass)


def _finish(
    mean: "Tensor",
    energies: Sequence[float],
    solution: "Solution",
    params: MergeParams,
    shape: tuple[int, int],
    place: float,
    room: "Tensor | None",
) -> tuple["Tensor", Averaged | LoreMeasures]:
    """Return θ* = θ_0 + λτ, θ_0 = mean − S/N refreshed from the task vectors as they were cut.

    It is written to `room`, where there is some.
    """
    import torch

    from tasks.merging.lore.algebra import add_up, inner

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
