"""A tensor of a pickled state: known by its shape, read when it is written."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch


class StoredTensor(NamedTuple):
    """A tensor that has not been read yet."""

    dtype: "torch.dtype"
    shape: tuple[int, ...]
    read: "Callable[[], torch.Tensor]"

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


def stored(tensor: Any) -> StoredTensor:
    """Return a tensor that is mapped from a file."""
    return StoredTensor(tensor.dtype, tuple(tensor.shape), lambda: tensor)
