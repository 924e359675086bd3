"""Weights of checkpoints, read one tensor at a time, and whether several can be merged."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from tasks.checkpoints.header import FLOATING, TensorInfo
from tasks.checkpoints.layout import read_json, read_tensors
from tasks.errors import BadInput

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
    "BOOL": torch.bool,
}  # fmt: skip
UNIMPORTANT = {"_name_or_path", "transformers_version", "use_cache"}


class Weights(NamedTuple):
    """A checkpoint's tensors: where each lies, nothing read yet."""

    label: str
    directory: Path
    tensors: dict[str, tuple[Path, TensorInfo]]


def open_weights(directory: Path, label: str) -> Weights:
    """Read and check the headers of a model directory; `label` names it in messages."""
    if not directory.is_dir():
        raise BadInput(f"{directory}: no such directory; name a checkpoint directory")
    return Weights(label, directory, read_tensors(directory))


def read_tensor(weights: Weights, name: str) -> torch.Tensor:
    """Read one tensor, in the dtype of the file. Raises BadInput when it holds NaN or Inf."""
    path, info = weights.tensors[name]
    data = bytearray(info.end - info.start)
    with path.open("rb") as file:
        file.seek(info.start)
        if file.readinto(data) != len(data):
            raise BadInput(f"{path}: became shorter while it was read; fetch the checkpoint again")
    dtype = DTYPES[info.dtype]
    tensor = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
    if info.dtype in FLOATING and not bool(torch.isfinite(tensor).all()):
        raise BadInput(
            f"{weights.label}: tensor {name} holds NaN or Inf; leave that checkpoint out of the merge"
        )
    return tensor.reshape(info.shape)


def check_agreement(inputs: Sequence[Weights]) -> None:
    """Raise BadInput unless all inputs are of one architecture: names, shapes, dtypes, configuration."""
    for one, other in itertools.pairwise(inputs):
        _check_names(one, other)
        for name in one.tensors:
            _check_tensor(name, one, other)
        _check_config(one, other)
    for name, (path, info) in inputs[0].tensors.items():
        if info.dtype not in DTYPES:
            raise BadInput(
                f"{path}: tensor {name} is quantised ({info.dtype}); merge the unquantised weights"
            )


def _check_names(one: Weights, other: Weights) -> None:
    for holder, lacker in ((one, other), (other, one)):
        if missing := holder.tensors.keys() - lacker.tensors.keys():
            raise BadInput(
                f"{lacker.label}: tensor {min(missing)} is missing, but {holder.label} has it; "
                "checkpoints of one merge must share one architecture"
            )


def _check_tensor(name: str, one: Weights, other: Weights) -> None:
    left, right = one.tensors[name][1], other.tensors[name][1]
    for field, a, b in (("", left.shape, right.shape), ("of dtype ", left.dtype, right.dtype)):
        if a != b:
            raise BadInput(
                f"{other.label}: tensor {name} is {field}{b}, but {field}{a} in {one.label}; "
                "checkpoints of one merge must share one architecture"
            )


def _check_config(one: Weights, other: Weights) -> None:
    left, right = (read_json(weights.directory / "config.json") for weights in (one, other))
    for key in sorted((left.keys() | right.keys()) - UNIMPORTANT):
        if left.get(key) != right.get(key):
            raise BadInput(
                f"{other.label}: {key} in config.json is {right.get(key)!r}, but {left.get(key)!r} "
                f"in {one.label}; checkpoints of one merge must share one configuration"
            )
