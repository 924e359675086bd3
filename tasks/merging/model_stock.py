"""Model Stock: how far to go from the base to the average, from the angle between the task vectors.

θ* = t·mean + (1 − t)·θ_b, t = N·c / (1 + (N − 1)·c), c the mean cosine of the pairs (Jang et al. 2024, arXiv
2403.19522).
"""

from collections.abc import Mapping

import numpy as np

from tasks.base.measures import ModelStockMeasures, TensorMeasures
from tasks.merging.block import Block
from tasks.merging.compose import Weighed, Weighing
from tasks.merging.inner_products import gram
from tasks.merging.program import Settings

NAMED = 3
"""Tensors that a note names."""


def model_stock(settings: Settings) -> Weighing:
    """t/N for every checkpoint, tensor by tensor."""
    results = yield lambda block: gram(block.deltas)
    cosines = {tensor: mean_cosine(np.sum(parts, axis=0)) for tensor, parts in results.items()}

    def weigh(block: Block) -> Weighed:
        cosine = cosines[block.tensor]
        t = interpolation(cosine, settings.count)
        return Weighed([t / settings.count] * settings.count, ModelStockMeasures(t=t, cosine=cosine))

    return weigh


def model_stock_findings(settings: Settings, tensors: Mapping[str, TensorMeasures]) -> list[str]:
    """Name the tensors that stay the base's, because the task vectors point apart."""
    found = {name: own.method for name, own in tensors.items() if isinstance(own.method, ModelStockMeasures)}
    kept = [name for name, own in found.items() if own.cosine <= 0]
    if not kept:
        return []
    some = ", ".join(kept[:NAMED]) + (", …" if len(kept) > NAMED else "")
    return [f"{len(kept)} of {len(found)} tensors stay the base's: their task vectors point apart ({some})"]


def interpolation(cosine: float, count: int) -> float:
    """Return t, 0 to 1; 0 for task vectors at right angles or more.

    For c < 0 the formula would step back behind the base, without bound at c = −1/(N − 1).
    """
    return count * cosine / (1 + (count - 1) * cosine) if cosine > 0 else 0.0


def mean_cosine(products: np.ndarray) -> float:
    """Return the mean cosine of all pairs, from their inner products; a zero vector's cosines are 0."""
    norms = np.sqrt(np.diag(products))
    units = np.divide(1, norms, out=np.zeros_like(norms), where=norms > 0)
    cosines = units[:, None] * products * units
    return float(cosines[np.triu_indices(len(norms), 1)].mean())
