"""Limiting the threads of torch and BLAS."""

from collections.abc import Iterator
from contextlib import contextmanager

ONE_THREAD_ELEMENTS = 2**20
"""Elements below which more threads gain little; beside other work they cost a factor of 8 (measured)."""


@contextmanager
def torch_threads_for(elements: int) -> Iterator[None]:
    """Let torch compute on one thread if the work is small, else on as many as it is set to."""
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

    For callers with threads of their own. Sums then do not depend on the number of cores either.
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
    """Keep torch to one thread in the calling thread; MKL has a setting for each thread.

    Without it a new thread's first decompositions would run on all cores, with other last digits.
    """
    import torch

    torch.set_num_threads(1)
