"""Inner products of task vectors, added up in float64: of numpy's and compiled loops' always in one order."""

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from tasks.merging.arrays import Array, double, of_numpy
from tasks.merging.deferred import Deferred, totals_of
from tasks.merging.kernels import total_of_lanes
from tasks.merging.loop_frames import LANES


def dot(a: Array, b: Array) -> float:
    """Return Σ a·b over two arrays of one shape, multiplied and added up in float64."""
    [product] = dots([(a, b)])
    return product


def dots(pairs: Sequence[tuple[Array, Array]]) -> list[float]:
    """Return Σ a·b of pairs of arrays, all of one shape, multiplied and added up in float64."""
    if all(isinstance(own, Deferred) for pair in pairs for own in pair):
        return totals_of([double(a) * double(b) for a, b in pairs])
    return [_dot(a, b) if of_numpy(a) else float((double(a) * double(b)).sum()) for a, b in pairs]


def _dot(a: Array, b: Array) -> float:
    a, b = np.asarray(a).reshape(-1), np.asarray(b).reshape(-1)
    whole = a.size - a.size % LANES
    # numpy adds up whole rows one after another, and so as a compiled loop does
    rows = (own[:whole].reshape(-1, LANES) for own in (a, b))
    lanes = np.einsum("kl,kl->l", *rows, dtype=np.float64)
    lanes[: a.size - whole] += np.multiply(a[whole:], b[whole:], dtype=np.float64)
    return float(total_of_lanes(lanes))


def gram(arrays: Sequence[Array]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the inner products of all pairs, N × N."""
    if not of_numpy(arrays[0]):
        import torch

        flat = torch.stack([array.reshape(-1) for array in arrays]).double()
        return np.asarray((flat @ flat.T).cpu(), dtype=np.float64)
    return symmetric_matrix(dots(pairs([double(array) for array in arrays])))


def pairs(arrays: Sequence[Array]) -> list[tuple[Array, Array]]:
    """Return every array with itself and with each before it: the lower triangle of a matrix of pairs."""
    return [(own, other) for i, own in enumerate(arrays) for other in arrays[: i + 1]]


def symmetric_matrix(lower: Sequence[float]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the symmetric matrix with this lower triangle, row by row."""
    count = math.isqrt(2 * len(lower))
    matrix: np.ndarray[Any, np.dtype[np.float64]] = np.array(lower, np.float64)[_places(count)]
    return matrix


@cache
def _places(count: int) -> np.ndarray[Any, np.dtype[np.intp]]:
    """Return for every element of a symmetric matrix where it is in the lower triangle."""
    places = np.empty((count, count), np.intp)
    rows, columns = np.tril_indices(count)
    places[rows, columns] = places[columns, rows] = np.arange(len(rows))
    return places
