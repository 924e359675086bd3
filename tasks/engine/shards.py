"""Safetensors files that are opened at their final size, with headers written before any tensor."""

import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tasks.checkpoints.header import ITEM_SIZE
from tasks.checkpoints.layout import INDEX, SINGLE
from tasks.checkpoints.numbers import Numbers, as_bytes

UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
         "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}  # fmt: skip


class Stored(NamedTuple):
    """A tensor's dtype and shape in the file."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * ITEM_SIZE[self.dtype]


Spec = Mapping[str, Stored]


def parse_size(text: str) -> int:
    """Turn a size such as 5GB or 500 MiB into bytes."""
    match = re.fullmatch(r"([\d.]+)\s*([A-Za-z]*)", text)
    assert match, text  # tasks/parameters/merge.py has checked the form
    return int(float(match[1]) * UNITS[match[2] or "B"])


def plan_shards(spec: Spec, max_bytes: int) -> dict[str, list[str]]:
    """Return file name → tensor names, in order, no file over `max_bytes` unless one tensor alone is."""
    shards: list[list[str]] = [[]]
    filled = 0
    for name, stored in spec.items():
        if shards[-1] and filled + stored.size > max_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += stored.size
    if len(shards) == 1:
        return {SINGLE: shards[0]}
    return {f"model-{i:05}-of-{len(shards):05}.safetensors": names for i, names in enumerate(shards, 1)}


class Shard(NamedTuple):
    """An open weight file of its final size."""

    path: Path
    handle: int
    header: bytes
    offsets: Mapping[str, int]
    """Tensor name → position of its first byte."""


@contextmanager
def open_shards(directory: Path, spec: Spec, max_bytes: int) -> Iterator[list[Shard]]:
    """Create or reopen the weight files of a model, reserve their disk space, and write the index.

    Raises OSError (ENOSPC) when the space is not there. The files stay open when the process is to stop
    (Ctrl-C, SIGTERM): a thread that does not hear of it may write to them until the end.
    """
    planned = plan_shards(spec, max_bytes)
    if len(planned) > 1:
        _write_index(directory / INDEX, spec, planned)
    shards: list[Shard] = []
    stopped = False
    try:
        for file_name, names in planned.items():
            shards.append(_open(directory / file_name, {name: spec[name] for name in names}))
        yield shards
    except BaseException as error:
        stopped = not isinstance(error, Exception)
        raise
    finally:
        for shard in [] if stopped else shards:
            os.close(shard.handle)


def write_numbers(shard: Shard, tensor: str, first_byte: int, numbers: Numbers) -> None:
    """Write part of a tensor at its place in the file."""
    view, offset = as_bytes(numbers), shard.offsets[tensor] + first_byte
    while view:  # pwrite may write less than asked: Linux stops at 2 GiB
        written = os.pwrite(shard.handle, view, offset)
        view, offset = view[written:], offset + written


def _open(path: Path, spec: Spec) -> Shard:
    header = _header(spec)
    offsets, offset = {}, len(header)
    for name, stored in spec.items():
        offsets[name] = offset
        offset += stored.size
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _reserve(handle, offset)
        os.pwrite(handle, header, 0)
    except BaseException:
        os.close(handle)
        raise
    return Shard(path, handle, header, offsets)


def _reserve(handle: int, size: int) -> None:
    os.ftruncate(handle, size)  # also cuts off what a file of another plan had beyond the end
    # A sparse file would let the merge run out of disk space halfway.
    if hasattr(os, "posix_fallocate") and size:
        os.posix_fallocate(handle, 0, size)


def _header(spec: Spec) -> bytes:
    # transformers refuses files without this metadata
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, stored in spec.items():
        end = offset + stored.size
        header[name] = {"dtype": stored.dtype, "shape": stored.shape, "data_offsets": [offset, end]}
        offset = end
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)  # data aligned to 8 bytes, as the format asks
    return len(raw).to_bytes(8, "little") + raw


def _write_index(path: Path, spec: Spec, shards: Mapping[str, Sequence[str]]) -> None:
    weight_map = {name: file for file, names in shards.items() for name in names}
    total = sum(stored.size for stored in spec.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    path.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
