"""LoRE as a method: what is solved, how the task vectors are combined, what the settings amount to."""

from typing import TYPE_CHECKING, Any

from tasks.errors import BadInput
from tasks.merge_params import MergeParams
from tasks.merging.block import Array, Block
from tasks.merging.combine import elected
from tasks.merging.program import Facts, Program, Settings, without_measuring
from tasks.merging.roles import is_embedding, is_head
from tasks.varying import varies

if TYPE_CHECKING:
    from torch import Tensor

    from tasks.merging.robust_base import Solution


def program(settings: Settings) -> Program:
    """θ* = θ_0 + λτ, matrix by matrix; vectors are averaged (Liu et al. 2025, Algorithm 1)."""
    return without_measuring(lambda block: merge_matrix(block, settings))


def merge_matrix(block: Block, settings: Settings) -> tuple[Array, Facts]:
    """Merge one whole matrix, float64."""
    import torch

    from tasks.merging.robust_base import solve

    params = settings.at(block.tensor)
    rows, columns = block.mean.shape
    if rows * columns == 0 or _averaged(block.tensor, settings.shapes[block.tensor], params):
        return block.mean, {"averaged": True}
    lore = params.lore
    anchor = None if lore.anchor == "mean" else list(settings.steps).index(lore.anchor)
    matrices = [torch.as_tensor(theta) for theta in block.thetas]
    solution = solve(matrices, lore.mu, lore.mu_scale, lore.rank_ratio, anchor, lore.tolerance)
    moved = _from_mean(solution, params)
    return block.mean + (moved if isinstance(block.mean, torch.Tensor) else moved.numpy()), _facts(solution)


def lam_of(params: MergeParams, count: int) -> float:
    """Return λ: the one given, else 1; for the sum 1.25/N, no worse than the mean over the demo's seeds."""
    if params.lam is not None:
        return params.lam
    return 1.25 / count if params.lore.combine == "sum" else 1.0


def trim(delta: "Tensor", density: float) -> "Tensor":
    """Keep the share of largest magnitude of a whole matrix, equals by lower index; the rest becomes 0."""
    import torch

    order = delta.abs().reshape(-1).argsort(descending=True, stable=True)
    kept = order[: round(density * order.numel())]
    trimmed = torch.zeros_like(delta).reshape(-1)
    trimmed[kept] = delta.reshape(-1)[kept]
    return trimmed.reshape(delta.shape)


def _averaged(tensor: str, shape: tuple[int, ...], params: MergeParams) -> bool:
    if len(shape) < 2:
        return True
    return params.lore.embeddings == "average" and (is_embedding(tensor, shape) or is_head(tensor, shape))


def _from_mean(solution: "Solution", params: MergeParams) -> "Tensor":
    """Return θ* − mean, where θ_0 = mean − S/N."""
    N = len(solution.deltas)
    if params.lore.combine != "ties":
        return _beyond(params, N) * solution.total
    tau = elected([1.0] * N, [trim(delta, params.ties.density) for delta in solution.deltas], params)
    merged: Tensor = lam_of(params, N) * tau - solution.total / N
    return merged


def _beyond(params: MergeParams, count: int) -> float:
    """Return how many S the merge lies beyond the mean, for τ = S and τ = S/N."""
    lam = lam_of(params, count)
    return lam - 1 / count if params.lore.combine == "sum" else (lam - 1) / count


def _facts(solution: "Solution") -> dict[str, Any]:
    if solution.passes == 0:
        return {"averaged": True}
    return {
        "passes": solution.passes,
        "gap": solution.gap,
        "mu": solution.mu,
        "ranks": solution.ranks,
        "share": solution.share,
    }


def check(settings: Settings) -> None:
    """Refuse an anchor that is not among the checkpoints, and a trim over the whole model."""
    params, steps = settings.params, list(settings.steps)
    anchor = params.lore.anchor
    if anchor != "mean" and anchor not in steps:
        raise BadInput(f"merge.lore.anchor: step {anchor} is not merged; the steps are {steps}")
    if params.lore.combine == "ties" and params.ties.scope == "model":
        raise BadInput("merge.ties.scope: lore trims matrix by matrix; set it to tensor")


def notes(settings: Settings) -> list[str]:
    """Say what these settings amount to."""
    params, N = settings.params, settings.count
    if N == 2 and params.lore.anchor == "mean":
        return [
            "equal to averaging: with two checkpoints and anchor mean the task vectors cancel "
            "for every λ and μ; set merge.lore.anchor to one of the steps, or merge more checkpoints"
        ]
    lines = [] if varies(params.lam) else _readings(params, N)
    if N > 2 and params.lore.anchor != "mean":
        lines.append(
            "merge.lore.anchor changes nothing for three checkpoints or more: there is one minimiser"
        )
    return lines


def _readings(params: MergeParams, N: int) -> list[str]:
    """Read λ: as a place on the line through θ_0 and the mean, where τ lies on it."""
    lam = lam_of(params, N)
    if params.lore.combine == "ties":
        return [f"λ = {lam:.4g} with N = {N}: θ* = θ_0 + {lam:.4g} · the sign-elected mean of the δ_i"]
    beyond = _beyond(params, N)
    reading = N * beyond
    if N == 2:
        line = (
            f"anchored at step {params.lore.anchor}: θ* = mean + {beyond:.4g} · SVT(θ_other − θ_anchor; 2μ)"
        )
    else:
        line = f"λ = {lam:.4g} with N = {N}: θ* = mean + {reading:.4g} · (mean − θ_0)"
    if abs(reading) < 1e-9:
        return [line, f"equal to averaging: λ = {'1/N' if params.lore.combine == 'sum' else '1'}"]
    if reading > 1:
        return [line, f"λ extrapolates: {reading:.3g} times as far beyond the mean as θ_0 lies before it"]
    return [line]
