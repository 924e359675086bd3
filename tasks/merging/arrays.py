"""The functions that numpy arrays, deferred ones and torch tensors do not share, under one name each."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = Any
"""A numpy array, an expression that becomes one, or a torch tensor on a GPU: methods keep to the operators
and functions that all have."""


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
