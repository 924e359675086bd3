"""Counting the halves of magnitudes' bit patterns, whose order is that of the magnitudes."""

from typing import Any, TypeAlias

import numpy as np

from tasks.merging.arrays import Array, of_numpy
from tasks.merging.deferred import Deferred

Tally: TypeAlias = tuple[np.ndarray[Any, np.dtype[np.uint16]], np.ndarray[Any, np.dtype[np.uint32]]]
"""Integers below 2**16, ascending, and how often each occurs."""


def bits(array: Array) -> Array:
    """Return the bit patterns of |x| as float32: integers below 2**31 in the order of the magnitudes."""
    if of_numpy(array):
        return abs(array).astype(np.float32, copy=False).view(np.int32)
    import torch

    return abs(array).float().view(torch.int32)


def tally(integers: Array, size: int, where: Array = None) -> Tally:
    """Count how often each of some integers from 0 to `size` − 1 occurs, in all or where a mask holds."""
    if isinstance(integers, Deferred):
        counts = integers.tallied(size, where)
    else:
        chosen = integers.reshape(-1) if where is None else integers[where]
        counts = np.bincount(chosen) if of_numpy(chosen) else chosen.bincount().cpu().numpy()
    present = np.flatnonzero(counts != 0)
    return present.astype(np.uint16), counts[present].astype(np.uint32)
