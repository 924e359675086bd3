"""Writing safetensors shards whose headers are known before the first tensor is computed."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from tasks.checkpoints.header import ITEM_SIZE, TensorInfo
from tasks.checkpoints.layout import INDEX, SINGLE
from tasks.checkpoints.weights import DTYPES

UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
         "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}  # fmt: skip

Spec = Mapping[str, TensorInfo]


def parse_size(text: str) -> int:
    """Turn a size such as 5GB or 500 MiB into bytes."""
    match = re.fullmatch(r"([\d.]+)\s*([A-Za-z]*)", text)
    assert match, text  # params.py has checked the form
    return int(float(match[1]) * UNITS[match[2] or "B"])


def plan_shards(tensors: Spec, max_bytes: int) -> dict[str, list[str]]:
    """Return file name → tensor names, in order, no file over `max_bytes` unless one tensor alone is."""
    shards: list[list[str]] = [[]]
    filled = 0
    for name, info in tensors.items():
        size = _size(info)
        if shards[-1] and filled + size > max_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    if len(shards) == 1:
        return {SINGLE: shards[0]}
    return {f"model-{i:05}-of-{len(shards):05}.safetensors": names for i, names in enumerate(shards, 1)}


def write_weights(
    directory: Path, spec: Spec, tensors: Iterator[tuple[str, torch.Tensor]], max_bytes: int
) -> None:
    """Write tensors, which come in the order of `spec` and in its dtypes and shapes, as one model."""
    shards = plan_shards(spec, max_bytes)
    for file_name, names in shards.items():
        with (directory / file_name).open("wb") as file:
            file.write(_header({name: spec[name] for name in names}))
            for expected in names:
                name, tensor = next(tensors)
                info = spec[name]
                assert (name, tensor.dtype, tuple(tensor.shape)) == (expected, DTYPES[info.dtype], info.shape)
                file.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    if len(shards) > 1:
        _write_index(directory / INDEX, spec, shards)


def _header(spec: Spec) -> bytes:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, info in spec.items():
        end = offset + _size(info)
        header[name] = {"dtype": info.dtype, "shape": info.shape, "data_offsets": [offset, end]}
        offset = end
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)  # data aligned to 8 bytes, as the format asks
    return len(raw).to_bytes(8, "little") + raw


def _write_index(path: Path, spec: Spec, shards: dict[str, list[str]]) -> None:
    weight_map = {name: file for file, names in shards.items() for name in names}
    total = sum(_size(info) for info in spec.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    path.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _size(info: TensorInfo) -> int:
    return math.prod(info.shape) * ITEM_SIZE[info.dtype]
