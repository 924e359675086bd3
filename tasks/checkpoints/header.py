"""The header of a safetensors file, checked against the file before anything is allocated."""

import json
import math
import re
from pathlib import Path
from typing import Any, NamedTuple

from tasks.base.errors import BadInput
from tasks.base.regular_files import NotRegular, open_regular

MAX_HEADER, MAX_TENSORS = 100_000_000, 100_000
MOST_ITEMS, FEW_TENSORS = 16, 1000
"""Commas that a tensor's entry may have, and tensors that a file's own metadata may be as long as."""
LONG_NUMBER = re.compile(rb"\d{100}")
"""No shape or offset has so many digits, and hardly any text in a file's metadata."""
ITEM_SIZE = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
FLOATING = ("F64", "F32", "F16", "BF16")


class TensorInfo(NamedTuple):
    """Where a tensor lies in its file: absolute byte offsets."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def read_header(path: Path) -> dict[str, TensorInfo]:
    """Read and check a header: every byte of the data belongs to exactly one tensor.

    Raises BadInput naming the file and the bytes when it is not a whole safetensors file.
    """
    size, length, raw = _read_raw(path)
    try:
        entries = json.loads(raw, object_pairs_hook=_unique)
        entries.pop("__metadata__", None)
        base = 8 + length
        tensors = {name: _tensor(name, entry, base) for name, entry in entries.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BadInput(path, f"damaged safetensors header ({error})", "save or fetch it again") from None
    _check_coverage(path, tensors, base, size)
    return tensors


def _read_raw(path: Path) -> tuple[int, int, bytes]:
    try:
        file, size = open_regular(path)
    except NotRegular:
        raise BadInput(path, "not a regular file", "remove it, or save or fetch it again") from None
    with file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise BadInput(
                path,
                f"truncated: {size} bytes, but its header alone needs {8 + length}",
                "save or fetch it again",
            )
        if length > MAX_HEADER:
            raise BadInput(
                path,
                f"a header of {length} bytes is over the limit of {MAX_HEADER}",
                "fetch the checkpoint again",
            )
        raw = file.read(length)
        _check_extent(path, raw)
        return size, length, raw


def _check_extent(path: Path, raw: bytes) -> None:
    """Raise BadInput for what would take seconds to parse, and describes no known model."""
    if (count := raw.count(b"{") - 1) > MAX_TENSORS:  # the first opens the header itself
        raise BadInput(
            path,
            f"{count} tensors in one file are over the limit of {MAX_TENSORS}",
            "save the model in more files, with a smaller max_shard_size",
        )
    if raw.count(b",") > MOST_ITEMS * (count + FEW_TENSORS) or LONG_NUMBER.search(raw):
        raise BadInput(
            path, "its header has shapes or numbers that no tensor has", "fetch the checkpoint again"
        )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("a key occurs twice")
    return entries


def _tensor(name: str, entry: dict[str, Any], base: int) -> TensorInfo:
    name.encode()  # half a surrogate pair is in no file's or report's text
    dtype, shape, (start, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    if dtype not in ITEM_SIZE:
        raise ValueError(f"tensor {name} has the unknown dtype {dtype}")
    if not all(type(number) is int and number >= 0 for number in (*shape, start, end)):  # true is an int
        raise ValueError(f"tensor {name} has the shape {shape} and bytes {start} to {end}")
    if end - start != math.prod(shape) * ITEM_SIZE[dtype]:
        raise ValueError(f"tensor {name} of shape {shape} cannot fill bytes {start} to {end}")
    return TensorInfo(dtype, shape, base + start, base + end)


def _check_coverage(path: Path, tensors: dict[str, TensorInfo], base: int, size: int) -> None:
    reached = base
    for name, info in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        if info.start != reached:
            raise BadInput(path, f"tensor {name} overlaps another or leaves a hole", "save or fetch it again")
        reached = info.end
    if size != reached:
        kind = "truncated" if size < reached else "has trailing bytes"
        raise BadInput(
            path, f"{kind}: {size} bytes, but its header describes {reached}", "save or fetch it again"
        )
