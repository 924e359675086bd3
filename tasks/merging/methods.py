"""The table of merge methods: N tensors of one name in, the merged tensor and what was measured out."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from tasks.merging.lore import Solution, solve
from tasks.params import MergeParams

Tensor = torch.Tensor
Merge = Callable[[Sequence[Tensor]], tuple[Tensor, Mapping[str, Any]]]


class Method(NamedTuple):
    """A named merge method."""

    summary: str
    reference: str
    make: Callable[[MergeParams, Sequence[int]], Merge]
    """Parameters and the steps of the checkpoints (oldest first) → the function on tensors."""
    notes: Callable[[MergeParams, Sequence[int]], list[str]]
    """What a reader must know about these settings, such as that they reduce to averaging."""


def mean(tensors: Sequence[Tensor]) -> Tensor:
    """Return the plain average; dividing the sum, not weighting by 1/N, keeps exact ties exact."""
    return weighted_sum(tensors, [1.0] * len(tensors)) / len(tensors)


def weighted_sum(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Return Σ w_i θ_i."""
    total = torch.zeros_like(tensors[0])
    for tensor, weight in zip(tensors, weights, strict=True):
        total += weight * tensor
    return total


def ema_weights(count: int, decay: float) -> list[float]:
    """Return weights ∝ decay^age, the newest (last) having age 0."""
    raw = [decay**age for age in reversed(range(count))]
    return [weight / sum(raw) for weight in raw]


def lore_lam(params: MergeParams, count: int) -> float:
    """Return λ: the one given, else 1.25/N, which did no worse than the mean over the demo's seeds."""
    return 1.25 / count if params.lam is None else params.lam


def merge_lore(
    tensors: Sequence[Tensor], params: MergeParams, anchor: int | None
) -> tuple[Tensor, dict[str, Any]]:
    """LoRE on one tensor: matrices are solved, stacks matrix by matrix, vectors averaged."""
    center = mean(tensors)
    if tensors[0].ndim < 2 or tensors[0].numel() == 0:
        return center, {"averaged": True}
    stacks = [as_matrices(tensor) for tensor in tensors]
    lore = params.lore
    solutions = [
        solve(matrices, lore.mu, lore.mu_scale, lore.rank_ratio, anchor, lore.tolerance)
        for matrices in zip(*stacks, strict=True)
    ]
    total = torch.stack([solution.total for solution in solutions]).reshape(center.shape)
    beyond = lore_lam(params, len(tensors)) - 1 / len(tensors)
    return center + beyond * total, _measured(solutions)


def as_matrices(tensor: Tensor) -> Tensor:
    """View a tensor as a stack of matrices: (b, m, n); a convolution as one matrix, out × (in · k)."""
    if tensor.ndim == 3:
        return tensor
    return tensor.reshape(1, tensor.shape[0], -1)


def _measured(solutions: Sequence[Solution]) -> dict[str, Any]:
    """Report the worst of a stack; for a single matrix that is itself."""
    if solutions[0].passes == 0:
        return {"averaged": True}
    return {
        "passes": max(solution.passes for solution in solutions),
        "gap": max(solution.gap for solution in solutions),
        "mu": max(solution.mu for solution in solutions),
        "ranks": [max(ranks) for ranks in zip(*(s.ranks for s in solutions), strict=True)],
        "share": max(solution.share for solution in solutions),
    }


def _average(params: MergeParams, steps: Sequence[int]) -> Merge:
    return lambda tensors: (mean(tensors), {})


def _ema(params: MergeParams, steps: Sequence[int]) -> Merge:
    weights = ema_weights(len(steps), params.ema.decay)
    return lambda tensors: (weighted_sum(tensors, weights), {})


def _lore(params: MergeParams, steps: Sequence[int]) -> Merge:
    anchor = None if params.lore.anchor == "mean" else list(steps).index(params.lore.anchor)
    return lambda tensors: merge_lore(tensors, params, anchor)


def _lore_notes(params: MergeParams, steps: Sequence[int]) -> list[str]:
    N, lam = len(steps), lore_lam(params, len(steps))
    reading = N * lam - 1
    notes = [f"λ = {lam:.4g} with N = {N}: θ* = mean + {reading:.4g} · (mean − θ_0)"]
    if N == 2 and params.lore.anchor == "mean":
        return [
            "equal to averaging: with two checkpoints and anchor mean the task vectors cancel "
            "for every λ and μ; set merge.lore.anchor to one of the steps, or merge more checkpoints"
        ]
    if N == 2:
        half = lam - 0.5
        notes = [
            f"anchored at step {params.lore.anchor}: θ* = mean + {half:.4g} · SVT(θ_other − θ_anchor; 2μ)"
        ]
    elif params.lore.anchor != "mean":
        notes.append(
            "merge.lore.anchor changes nothing for three checkpoints or more: there is one minimiser"
        )
    if abs(reading) < 1e-9:
        notes.append("equal to averaging: λ = 1/N")
    elif reading > 1:
        notes.append(f"λ extrapolates: {reading:.3g} times as far beyond the mean as θ_0 lies before it")
    return notes


METHODS = {
    "lore": Method(
        "approximate base plus low-rank task vectors",
        "Liu et al. 2025, LoRE-Merging",
        _lore,
        _lore_notes,
    ),
    "average": Method(
        "plain average",
        "Wortsman et al. 2022, arXiv 2203.05482",
        _average,
        lambda params, steps: [],
    ),
    "ema": Method(
        "average with weights decay^age",
        "Polyak and Juditsky 1992; Izmailov et al. 2018, arXiv 1803.05407",
        _ema,
        lambda params, steps: [],
    ),
}
