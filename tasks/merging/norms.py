"""Weights from norms: NAN, inversely to the norm; MetaGPT, to its square.

The norms of checkpoints or task vectors, of each tensor or of the whole model, come from one measurement.
"""

from collections.abc import Callable, Generator, Sequence
from typing import Literal, TypeAlias

from tasks.base.measures import WeightsUsed
from tasks.merging.arrays import Array
from tasks.merging.block import Block
from tasks.merging.compose import Weighed, Weighing
from tasks.merging.inner_products import dots
from tasks.merging.program import Measure, Results, Settings

Squares: TypeAlias = Callable[[str], Sequence[float]]
"""Tensor → ‖·‖_F² for each checkpoint."""


def nan(settings: Settings) -> Weighing:
    """c_i ∝ 1/‖·‖_F with Σc = 1; `nan.scale` multiplies λ (Si et al. 2025, arXiv 2505.16148)."""
    of, per = settings.params.nan.of, settings.params.nan.per
    squares = yield from _squared_norms(settings, per, lambda block: _of(block, of))

    def weigh(block: Block) -> Weighed:
        c = inverse_to_norm(squares(block.tensor))
        return Weighed(c, WeightsUsed(weights=tuple(c)), settings.at(block.tensor).nan.scale)

    return weigh


def metagpt(settings: Settings) -> Weighing:
    """c_i = ‖τ_i‖² / Σ‖τ_k‖² (Zhou et al. 2024, arXiv 2406.11385)."""
    squares = yield from _squared_norms(settings, settings.params.metagpt.per, lambda block: block.deltas)

    def weigh(block: Block) -> Weighed:
        c = by_square(squares(block.tensor))
        return Weighed(c, WeightsUsed(weights=tuple(c)))

    return weigh


def inverse_to_norm(squares: Sequence[float]) -> list[float]:
    """Return weights ∝ 1/norm that sum to 1; where norms are zero they share the whole weight, the limit."""
    smallest = min(squares)
    if smallest == 0.0:
        raw = [float(square == 0.0) for square in squares]
    else:
        raw = [(smallest / square) ** 0.5 for square in squares]  # equal norms give 1 each: exactly uniform
    return [weight / sum(raw) for weight in raw]


def by_square(squares: Sequence[float]) -> list[float]:
    """Return weights ∝ norm² that sum to 1; uniform where every norm is zero."""
    whole = sum(squares)
    return [square / whole if whole else 1 / len(squares) for square in squares]


def _of(block: Block, of: Literal["weights", "task_vectors"]) -> Sequence[Array]:
    return block.thetas if of == "weights" else block.deltas


def _squared_norms(
    settings: Settings, per: Literal["tensor", "model"], vectors: Callable[[Block], Sequence[Array]]
) -> Generator[Measure, Results, Squares]:
    results = yield lambda block: dots([(vector, vector) for vector in vectors(block)])
    tensors = {tensor: _add(results[tensor]) for tensor in settings.shapes}
    if per == "tensor":
        return tensors.__getitem__
    model = _add(list(tensors.values()))
    return lambda tensor: model


def _add(parts: Sequence[Sequence[float]]) -> list[float]:
    return [sum(own) for own in zip(*parts, strict=True)]
