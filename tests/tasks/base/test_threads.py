"""Small things on one thread, large ones as torch is set, and always as before afterwards."""

import json
import subprocess
import sys

import torch

from tasks.base.threads import ONE_THREAD_ELEMENTS, torch_threads_for


def test_threads_follow_the_size_and_are_restored() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with torch_threads_for(ONE_THREAD_ELEMENTS - 1):
            assert torch.get_num_threads() == 1
        with torch_threads_for(ONE_THREAD_ELEMENTS):
            assert torch.get_num_threads() == 2
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


POOLS = """
import json
from tasks.base.threads import one_thread_each
with one_thread_each(True):
    import numpy, scipy.linalg, torch
    from threadpoolctl import threadpool_info
    print(json.dumps([pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]))
    print(torch.get_num_threads())
"""


def test_one_thread_each_holds_for_libraries_that_are_loaded_within() -> None:
    """Every BLAS has a pool of its own; one that was left alone made a merge four times as slow."""
    found = subprocess.run([sys.executable, "-c", POOLS], capture_output=True, text=True, check=True)
    pools, torch_threads = map(json.loads, found.stdout.splitlines())
    assert len(pools) >= 2
    assert {*pools, torch_threads} == {1}


FIRST = """
from concurrent.futures import ThreadPoolExecutor
from tasks.base.threads import compute_alone, one_thread_each
with one_thread_each(True):
    import torch
    A = torch.randn(300, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    decompose = lambda: torch.linalg.eigh(A.T @ A)[1].numpy().tobytes()
    with ThreadPoolExecutor(1, initializer=compute_alone) as pool:
        print(int(pool.submit(decompose).result() == decompose()))
"""


def test_a_new_thread_s_first_decomposition_is_that_of_any_other() -> None:
    """MKL took all cores for it, and a merge's last places depended on which thread got a tensor first."""
    found = subprocess.run([sys.executable, "-c", FIRST], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "1"
