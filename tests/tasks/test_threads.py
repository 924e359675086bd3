"""Small things on one thread, large ones as torch is set, and always as before afterwards."""

import torch

from tasks.threads import SMALL, threads_for


def test_threads_follow_the_size_and_are_restored() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with threads_for(SMALL - 1):
            assert torch.get_num_threads() == 1
        with threads_for(SMALL):
            assert torch.get_num_threads() == 2
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
