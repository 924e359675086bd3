"""The methods once more, each as its paper has it, on whole tensors in float64; and bfloat16, rounded once."""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any, TypeAlias

import numpy as np

from tasks.merging.drop import survivors
from tasks.parameters.merge import DareParams

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Reference: TypeAlias = Callable[[str, Array, Sequence[Array]], Array]
"""Tensor name, base, checkpoints → merged, all float64."""


def average(name: str, base: Array, thetas: Sequence[Array]) -> Array:
    return sum(thetas) / len(thetas)


def task_arithmetic(name: str, base: Array, thetas: Sequence[Array]) -> Array:
    return base + sum(theta - base for theta in thetas)


def slerp(name: str, base: Array, thetas: Sequence[Array]) -> Array:
    """Half of the way along the arc; of the chord where the two are collinear."""
    first, second = thetas
    cosine = np.vdot(first, second) / (np.linalg.norm(first) * np.linalg.norm(second))
    if abs(cosine) > 0.9995:
        return (first + second) / 2
    angle = np.arccos(cosine)
    return (first + second) * (np.sin(angle / 2) / np.sin(angle))


def model_stock(name: str, base: Array, thetas: Sequence[Array]) -> Array:
    deltas = [theta - base for theta in thetas]
    norms = [float(np.linalg.norm(delta)) or 1.0 for delta in deltas]
    pairs = list(combinations(range(len(deltas)), 2))
    cosine = max(
        0.0, sum(np.vdot(deltas[i], deltas[j]) / (norms[i] * norms[j]) for i, j in pairs) / len(pairs)
    )
    t = len(deltas) * cosine / (1 + (len(deltas) - 1) * cosine)
    return base + t * sum(deltas) / len(deltas)


def ties(name: str, base: Array, thetas: Sequence[Array]) -> Array:
    deltas = [theta - base for theta in thetas]
    return base + elected([delta * leading(delta, round(0.5 * delta.size)) for delta in deltas])


def breadcrumbs(name: str, base: Array, thetas: Sequence[Array]) -> Array:
    merged = base.copy()
    outliers, kept = round(0.01 * base.size), round(0.5 * base.size)
    for theta in thetas:
        delta = theta - base
        merged += delta * (leading(delta, outliers + kept) & ~leading(delta, outliers))
    return merged


def dare_ties(name: str, base: Array, thetas: Sequence[Array]) -> Array:
    """With the project's own draw: what is dropped is a promise, not mathematics."""
    masks = [survivors(DareParams(), name, i, 0, base.size).reshape(base.shape) for i in range(len(thetas))]
    return base + elected([(theta - base) * mask / 0.5 for theta, mask in zip(thetas, masks, strict=True)])


REFERENCES: Mapping[str, Reference] = {
    "average": average,
    "task_arithmetic": task_arithmetic,
    "slerp": slerp,
    "model_stock": model_stock,
    "dare_ties": dare_ties,
    "breadcrumbs": breadcrumbs,
    "ties": ties,
}


def open_choices(method: str, base: Array, thetas: Sequence[Array]) -> Array:
    """Mark what the paper leaves open, so that two faithful programs may differ.

    Which of the elements are kept whose magnitudes are equal to the cutoff, and which sign wins where the sum is 0.
    """
    deltas = [theta - base for theta in thetas]
    open_ = np.zeros(base.shape, bool)
    for rank in (round(share * base.size) for share in CUTS.get(method, [])):
        open_ |= np.any([abs(delta) == _cutoff(delta, rank) for delta in deltas], axis=0)
    if method == "ties":
        kept = [delta * leading(delta, round(0.5 * delta.size)) for delta in deltas]
        open_ |= (sum(kept) == 0) & np.any(kept, axis=0)
    return open_


CUTS: Mapping[str, Sequence[float]] = {"ties": [0.5], "breadcrumbs": [0.01, 0.51]}
"""Shares of the largest magnitudes that a method tells from the rest."""


def leading(delta: Array, rank: int) -> Array:
    """Mark the first `rank` elements by magnitude; of equal ones those with the lower index."""
    size, last = abs(delta).reshape(-1), _cutoff(delta, rank)
    mask = size > last
    mask[np.flatnonzero(size == last)[: rank - np.count_nonzero(mask)]] = True
    return mask.reshape(delta.shape)


def _cutoff(delta: Array, rank: int) -> float:
    """Return the rank-th largest magnitude."""
    size = abs(delta).reshape(-1)
    return float(np.partition(size, size.size - rank)[size.size - rank])


def elected(deltas: Sequence[Array]) -> Array:
    """Mean of those that have the sign of the sum; 0 where the sum is 0."""
    sign = np.sign(sum(deltas))
    agreeing = [delta * sign > 0 for delta in deltas]
    total = sum(delta * agrees for delta, agrees in zip(deltas, agreeing, strict=True))
    return total / np.maximum(sum(agrees.astype(np.int8) for agrees in agreeing), 1)


def bfloat16(x: Array) -> Array:
    """Round float64 once, ties to even; return the bit patterns. For normal numbers and zero.

    By way of float32, as torch does it, would round twice.
    """
    bits = np.ascontiguousarray(x).view(np.uint64)
    half, unit = np.uint64(2**44), np.uint64(45)
    odd = bits >> unit & np.uint64(1)
    rounded = (bits + half - np.uint64(1) + odd) >> unit << unit
    return (rounded.view(np.float64).astype(np.float32).view(np.uint32) >> np.uint32(16)).astype(np.uint16)


def last_places(a: Array, b: Array) -> Array:
    """Return how many bfloat16 numbers lie from a to b, given as bit patterns."""
    return abs(_position(a) - _position(b))


def _position(bits: Array) -> Array:
    """Return a bfloat16's place among all in ascending order; both zeros are 0."""
    magnitude = (bits & np.uint16(0x7FFF)).astype(np.int32)
    return np.where(bits & np.uint16(0x8000), -magnitude, magnitude)
