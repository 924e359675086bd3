"""SLERP: along the arc between two checkpoints instead of the chord (Shoemake 1985)."""

import math

from tasks.base.measures import SlerpMeasures
from tasks.merging.block import Block
from tasks.merging.compose import Weighed, Weighing
from tasks.merging.inner_products import dots
from tasks.merging.program import Settings

COLLINEAR = 0.9995
"""Above this |cosine| the chord replaces the arc, as is usual: sin Ω, the divisor, is nearly 0."""


def slerp(settings: Settings) -> Weighing:
    """sin((1 − t)Ω)/sin Ω and sin(tΩ)/sin Ω, Ω the angle between the two as vectors, tensor by tensor."""
    results = yield _measure
    found = {tensor: _cosine(*map(sum, zip(*parts, strict=True))) for tensor, parts in results.items()}

    def weigh(block: Block) -> Weighed:
        cosine = found[block.tensor]
        c = arc_weights(cosine, settings.at(block.tensor).slerp.t)
        return Weighed(c, SlerpMeasures(weights=tuple(c), cosine=cosine))

    return weigh


def arc_weights(cosine: float, t: float) -> list[float]:
    """Return the weights of both ends; linear where the ends are collinear."""
    if abs(cosine) > COLLINEAR:
        return [1 - t, t]
    angle = math.acos(cosine)
    return [math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)]


def _measure(block: Block) -> list[float]:
    """Return both squared norms and the dot product of a block; the sums over all blocks give Ω."""
    first, second = block.thetas
    return dots([(first, first), (second, second), (first, second)])


def _cosine(first: float, second: float, product: float) -> float:
    """Return the cosine; 1 where a norm is zero, which selects linear interpolation."""
    length = math.sqrt(first) * math.sqrt(second)
    return max(-1.0, min(1.0, product / length)) if length else 1.0
