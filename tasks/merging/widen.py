"""WIDEN: a weight for each column of each checkpoint, from how far its magnitude and direction moved.

Yu et al. 2024, arXiv 2408.03092: θ* = θ_b + Σ ½(M + D) ⊙ (θ_n − θ_b). A column is what one input multiplies:
of a matrix, a column; of an embedding, the row of one token; of a vector, one element, all magnitude.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from tasks.base.measures import WeightsUsed
from tasks.merging import arrays
from tasks.merging.arrays import Array
from tasks.merging.block import Block
from tasks.merging.compose import Weighed, Weighing
from tasks.merging.program import Settings
from tasks.merging.roles import is_embedding
from tasks.parameters.merge import WidenParams

Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]


def widen(settings: Settings) -> Weighing:
    """½(M + D): one number for each column of a block."""
    along = {tensor: _axis(tensor, shape) for tensor, shape in settings.shapes.items()}
    results = yield lambda block: (block.matrix, _measure(block, along[block.tensor]))
    tables: dict[str, list[Floats]] = {}
    for tensor, parts in results.items():
        params = settings.at(tensor).widen
        diverge = _of_elements if len(settings.shapes[tensor]) < 2 else _of_columns
        tables[tensor] = [scores(*diverge(whole), params) for whole in _join(parts, along[tensor])]

    def weigh(block: Block) -> Weighed:
        c = tables[block.tensor][block.matrix]
        measures = WeightsUsed(weights=_mean(tables[block.tensor]))
        if along[block.tensor] == 1:
            rows, columns = block.thetas[0].shape
            first = block.start // max(columns, 1)
            c = c[:, first : first + rows, None]
        return Weighed([arrays.factors(own, block.thetas[0]) for own in c], measures)

    return weigh


def scores(magnitude: Floats, direction: Floats, params: WidenParams) -> Floats:
    """Return ½(M + D), checkpoints × columns, from the divergences of magnitude and direction."""
    return (_score(magnitude, params) + _score(direction, params)) / 2


def _score(divergence: Floats, params: WidenParams) -> Floats:
    """Softmax of the ranks j/k over the checkpoints, or s where a rank exceeds t times the mean rank."""
    count, k = divergence.shape
    ranks = np.empty((count, k))
    np.put_along_axis(ranks, divergence.argsort(kind="stable"), np.arange(1.0, k + 1)[None], axis=1)
    # ranks, not divergences: they compare between checkpoints whose task vectors differ in size
    importance = np.exp(ranks / max(k, 1))
    return np.where(2 * ranks > params.t * (k + 1), params.s, importance / importance.sum(0))


def _axis(tensor: str, shape: Sequence[int]) -> int:
    """Return the axis of a block over which a column extends: 1 for embeddings and vectors."""
    return 1 if len(shape) < 2 or is_embedding(tensor, shape) else 0


def _measure(block: Block, axis: int) -> Floats:
    """Return Σw_b², Σw² and Σδ² of every column: checkpoints × 3 × columns.

    The direction is measured on δ, since 1 − cos of what moved little would be rounding.
    """

    def squares(array: Array) -> Floats:
        return arrays.sums(array * array, axis)

    base = squares(block.anchor)
    pairs = zip(block.thetas, block.deltas, strict=True)
    return np.array([(base, squares(theta), squares(delta)) for theta, delta in pairs])


def _join(parts: Sequence[tuple[int, Floats]], axis: int) -> list[Floats]:
    """Put the blocks of each matrix together: columns add up, tokens and elements follow each other."""
    matrices: list[list[Floats]] = [[] for _ in range(parts[-1][0] + 1)]
    for matrix, part in parts:
        matrices[matrix].append(part)
    return [np.concatenate(own, axis=-1) if axis == 1 else np.sum(own, axis=0) for own in matrices]


def _of_elements(measured: Floats) -> tuple[Floats, Floats]:
    """Return |w − w_b| for both: an element of a vector has a magnitude only."""
    magnitude = np.sqrt(measured[:, 2])
    return magnitude, magnitude


def _of_columns(measured: Floats) -> tuple[Floats, Floats]:
    """Return |m − m_b| and 1 − cos; a zero column has no direction to change."""
    base, own, moved = np.sqrt(measured).transpose(1, 0, 2)
    magnitude = np.abs(own - base)
    lengths = 2 * own * base
    direction = np.divide(moved**2 - magnitude**2, lengths, out=np.zeros_like(own), where=lengths > 0)
    return magnitude, direction


def _mean(tables: Sequence[Floats]) -> tuple[float, ...]:
    """Return the mean weight of each checkpoint."""
    whole = np.concatenate(tables, axis=1)
    return tuple(float(own.sum() / max(len(own), 1)) for own in whole)
