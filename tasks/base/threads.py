"""How many threads a computation is worth."""

from collections.abc import Iterator
from contextlib import contextmanager

ONE_THREAD_ELEMENTS = 2**20
"""Elements below which a second thread brings little, and beside other work cost a factor of 8 (measured)."""


@contextmanager
def torch_threads_for(elements: int) -> Iterator[None]:
    """Let torch compute on one thread while what it works on is small, and as it was set before otherwise."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1 if elements < ONE_THREAD_ELEMENTS else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def one_thread_each(torch_too: bool) -> Iterator[None]:
    """Let BLAS, and torch if it is used, compute on the calling thread alone, and as before afterwards.

    For whoever brings threads of his own; and sums no longer depend on how many there are.
    """
    from threadpoolctl import threadpool_limits

    if torch_too:
        import scipy.linalg  # noqa: F401  # a pool that is loaded later is not limited
        import torch
    with threadpool_limits(1, user_api="blas"):
        if not torch_too:
            yield
            return
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def compute_alone() -> None:
    """Keep torch to the calling thread, which must be told by itself: MKL counts threads for each.

    Until torch is asked, a new thread's first decompositions would run on all cores, with other last places.
    """
    import torch

    torch.set_num_threads(1)
