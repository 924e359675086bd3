"""Stored numbers on a GPU: they travel as they are stored, and are decoded and rounded there."""

from dataclasses import replace
from typing import Any

import numpy as np

from tasks.merging.arrays import Array
from tasks.merging.block import Block
from tasks.merging.deferred import Deferred
from tasks.merging.kernels import Buffer
from tasks.merging.loop_source import DECODED, rounds

TORCH_NAMES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}
"""What torch calls a dtype of safetensors."""


def load_linear_algebra(device: str) -> None:
    """Let torch load what decomposes on a GPU: threads that do it at once fail (pytorch/pytorch#90613)."""
    if device.startswith("cuda"):
        import torch

        torch.linalg.inv(torch.eye(1, device=device))


def take_a_stream(device: str) -> None:
    """Let what the calling thread does on a GPU run beside what other threads do there."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.set_stream(torch.cuda.Stream(device))  # type: ignore[no-untyped-call]


def finish_stream(device: str) -> None:
    """Wait for what the calling thread has begun on a GPU, before other threads use it."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.current_stream(device).synchronize()


def to_device(block: Block, device: str, whole: bool) -> Block:
    """Return a block as torch tensors on a device; the checkpoints of a whole matrix are one tensor."""
    base = None if block.base is None else _moved(block.base, device)
    importance = [_moved(own, device) for own in block.importance]
    grams = [_moved(own, device) for own in block.grams]
    if whole:
        return replace(block, thetas=_side_by_side(block.thetas, device), base=base, grams=grams)
    thetas = [_moved(theta, device) for theta in block.thetas]
    return replace(block, thetas=thetas, base=base, importance=importance, grams=grams)


def rounded_there(values: Any, dtype: str) -> Buffer | None:
    """Round a tensor once to a dtype of safetensors, into a flat array; None where torch rounds twice."""
    import torch

    if not rounds({torch.float32: "f4", torch.float64: "f8"}[values.dtype], dtype):
        return None
    rounded = values.reshape(-1).to(getattr(torch, TORCH_NAMES[dtype])).cpu()
    flat: Buffer = rounded.view(torch.int16).numpy().view(np.uint16) if dtype == "BF16" else rounded.numpy()
    return flat


def _moved(own: Array, device: str) -> Any:
    import torch

    if not isinstance(own, Deferred) or own.operation not in DECODED:
        return _sent(torch.from_numpy(np.asarray(own)), device)
    [raw] = own.operands
    assert isinstance(raw, np.ndarray)
    bits = _sent(torch.from_numpy(raw.view(f"i{raw.itemsize}")), device)
    stored = bits.view(getattr(torch, TORCH_NAMES[own.operation]))
    # copied where nothing has to be decoded: methods compute in place, and raw numbers stay as they are
    return stored.to(getattr(torch, own.dtype.name), copy=not device.startswith("cuda")).reshape(own.shape)


def _sent(tensor: Any, device: str) -> Any:
    if not device.startswith("cuda"):
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)  # so that this thread goes on meanwhile


def _side_by_side(arrays: Any, device: str) -> Any:
    """Return arrays as one on the device, without holding them there twice."""
    import torch

    if isinstance(arrays, np.ndarray):
        return _moved(arrays, device)
    dtype = getattr(torch, arrays[0].dtype.name)
    stack = torch.empty((len(arrays), *arrays[0].shape), dtype=dtype, device=device)
    for place, own in zip(stack, arrays, strict=True):
        place.copy_(_moved(own, device))
    return stack
