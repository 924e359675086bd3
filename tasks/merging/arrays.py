"""The functions that numpy arrays, deferred ones and torch tensors do not share, under one name each."""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from tasks.merging.deferred import Deferred, totals_of
from tasks.merging.kernels import LANES, total_of_lanes

Array: TypeAlias = Any
"""A numpy array, an expression that becomes one, or a torch tensor on a GPU: methods keep to the operators
and functions that all have."""

PIECE = 2**18
"""Elements whose products are held at a time."""


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
    lanes = np.zeros(LANES)
    for first in range(0, a.size, PIECE):
        products = np.multiply(a[first : first + PIECE], b[first : first + PIECE], dtype=np.float64)
        rows, rest = divmod(products.size, LANES)
        whole = products[: rows * LANES].reshape(-1, LANES)
        # numpy adds up whole rows one after another, and so as a compiled loop does
        lanes = (np.vstack([lanes, whole]) if first else whole).sum(axis=0)
        lanes[:rest] += products[rows * LANES :]
    return float(total_of_lanes(lanes))


def gram(arrays: Sequence[Array]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the inner products of all pairs, N × N."""
    if not of_numpy(arrays[0]):
        import torch

        flat = torch.stack([array.reshape(-1) for array in arrays]).double()
        return np.asarray((flat @ flat.T).cpu(), dtype=np.float64)
    return symmetric(dots(pairs([double(array) for array in arrays])))


def pairs(arrays: Sequence[Array]) -> list[tuple[Array, Array]]:
    """Return every array with itself and with each before it: the lower triangle of a matrix of pairs."""
    return [(own, other) for i, own in enumerate(arrays) for other in arrays[: i + 1]]


def symmetric(lower: Sequence[float]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the symmetric matrix with this lower triangle, row by row."""
    count = math.isqrt(2 * len(lower))
    matrix, triangle = np.empty((count, count)), np.tril_indices(count)
    matrix[triangle] = matrix.T[triangle] = lower
    return matrix


def ascending(arrays: Sequence[Array]) -> list[Array]:
    """Sort element by element: the first result holds the smallest of each, the last the largest."""
    smaller: Callable[[Array, Array], Array] = np.minimum
    larger: Callable[[Array, Array], Array] = np.maximum
    rows = [np.asarray(array) for array in arrays] if of_numpy(arrays[0]) else list(arrays)
    if not of_numpy(rows[0]):
        import torch

        smaller, larger = torch.minimum, torch.maximum
    for end in range(len(rows) - 1, 0, -1):  # whole arrays are compared: faster than sorting short columns
        for i in range(end):
            rows[i], rows[i + 1] = smaller(rows[i], rows[i + 1]), larger(rows[i], rows[i + 1])
    return rows


def double(array: Array) -> Array:
    """Return the numbers in float64."""
    return array.astype(np.float64) if of_numpy(array) else array.double()


def solution(matrix: Array, right: Array) -> Array:
    """Return X of matrix · X = right."""
    if of_numpy(matrix):
        return np.linalg.solve(matrix, right)
    import torch

    return torch.linalg.solve(matrix, right)


def to_numpy(array: Array) -> np.ndarray[Any, np.dtype[Any]]:
    """Bring an array to the CPU."""
    return np.asarray(array) if of_numpy(array) else array.cpu().numpy()


def count_nonzero(mask: Array) -> int:
    """Count the true elements."""
    return int(np.count_nonzero(np.asarray(mask)) if of_numpy(mask) else mask.sum())


def like(array: np.ndarray[Any, Any], other: Array) -> Array:
    """Bring a numpy array to the device of `other`."""
    if of_numpy(other):
        return array
    import torch

    return torch.from_numpy(array).to(other.device)


def factors(numbers: np.ndarray[Any, Any], other: Array) -> Array:
    """Bring numbers to the device and dtype of `other`, so that their product keeps both."""
    return number(like(numbers, other), other)


def sums(array: Array, axis: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the sums along an axis, added up in float64."""
    if of_numpy(array):
        return np.asarray(array.sum(axis, dtype=np.float64))
    import torch

    return np.asarray(array.sum(axis, dtype=torch.float64).cpu())


def number(mask: Array, other: Array) -> Array:
    """Return 1 where the mask holds and else 0, in the dtype of `other`."""
    return mask.astype(other.dtype) if of_numpy(mask) else mask.to(other.dtype)


def eps(array: Array) -> float:
    """Return the machine epsilon of the array's dtype."""
    if of_numpy(array):
        return float(np.finfo(array.dtype).eps)
    import torch

    return torch.finfo(array.dtype).eps


def of_numpy(array: Array) -> bool:
    """Tell a numpy array, or what follows numpy's protocol, from a torch tensor."""
    return hasattr(type(array), "__array_ufunc__")
