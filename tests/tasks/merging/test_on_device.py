"""What travels to a device as it is stored is there what numpy decodes, and is rounded there as numpy rounds it."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.checkpoints.numbers import Numbers, compute_dtype, decode, encode
from tasks.merging.block import Block
from tasks.merging.deferred import defer
from tasks.merging.on_device import rounded_there, to_device
from tests.support.stored_numbers import DTYPES, numbers_of, same


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from(DTYPES), st.sampled_from(DTYPES), st.integers(0, 40), st.booleans())
def test_stored_numbers_are_decoded_there(
    data: st.DataObject, dtype: str, output: str, size: int, whole: bool
) -> None:
    raws = [data.draw(numbers_of(dtype, size)) for _ in range(3)]
    compute = compute_dtype(output)
    deferred = [defer(raw, dtype, compute, (size, 1)) for raw in raws]
    found = to_device(Block("x", 0, 0, deferred, deferred[0]), "cpu:0", whole)
    with np.errstate(all="ignore"):
        expected = [decode(raw, dtype, compute).reshape(size, 1) for raw in raws]
    for own, numbers in zip(found.thetas, expected, strict=True):
        same(own.numpy(), numbers)
    same(np.asarray(found.base), expected[0])
    assert isinstance(found.thetas, torch.Tensor) == whole


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from(DTYPES), st.sampled_from(["F32", "F64"]), st.integers(0, 40))
def test_numbers_are_rounded_there_as_numpy_rounds_them(
    data: st.DataObject, dtype: str, computed: str, size: int
) -> None:
    values = data.draw(numbers_of(computed, size))
    found = rounded_there(torch.from_numpy(values), dtype)
    if found is None:
        assert (computed, dtype) in {("F64", "BF16"), ("F64", "F16")}  # torch goes by way of float32
    else:
        same(found, encode(values, dtype))


def test_what_is_stored_stays_as_it_is() -> None:
    """On a device that is the CPU, too, where no copy would be needed."""
    raw: Numbers = np.ones(4, np.float32)
    block: Any = to_device(Block("x", 0, 0, [defer(raw, "F32", np.float32, (4, 1))], None), "cpu:0", False)
    block.thetas[0].zero_()
    assert raw.tolist() == [1, 1, 1, 1]


on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
AT_ONCE = """
import sys, threading
import torch
from tasks.merging.on_device import finish_stream, load_linear_algebra, take_a_stream

load_linear_algebra("cuda:0")
begin, failed = threading.Barrier(8), []

def decompose() -> None:
    take_a_stream("cuda:0")
    begin.wait()
    try:
        A = torch.eye(600, device="cuda:0") * 4.0
        for function in (torch.linalg.cholesky, torch.linalg.eigvalsh, torch.linalg.inv):
            function(A)
        finish_stream("cuda:0")
    except RuntimeError as error:
        failed.append(error)

threads = [threading.Thread(target=decompose) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
sys.exit(str(failed[0]) if failed else 0)
"""


@pytest.mark.gpu
@on_a_gpu
def test_threads_may_decompose_at_once_from_the_first_moment() -> None:
    """In a process of its own, where nothing has decomposed before."""
    done = subprocess.run([sys.executable, "-c", AT_ONCE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.gpu
@on_a_gpu
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_gpu_decodes_and_rounds_as_numpy_does(dtype: str) -> None:
    values = np.random.default_rng(0).normal(size=999).astype(compute_dtype(dtype))
    raw = encode(values, dtype)
    block = to_device(
        Block("x", 0, 0, [defer(raw, dtype, compute_dtype(dtype), (999, 1))], None), "cuda:0", False
    )
    same(block.thetas[0].cpu().numpy().reshape(-1), decode(raw, dtype, compute_dtype(dtype)))
    same(rounded_there(torch.from_numpy(values).cuda(), dtype), raw)
