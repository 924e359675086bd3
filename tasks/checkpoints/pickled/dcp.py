"""Weights written by torch.distributed.checkpoint: chunks in files, and a pickle of where they are.

Source: torch/distributed/checkpoint/filesystem.py and metadata.py, whose own reader unpickles freely.
"""

import io
import math
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tasks.base.errors import BadInput
from tasks.checkpoints.pickled.kinds import DCP_METADATA
from tasks.checkpoints.pickled.loading import AGAIN, Inert, load_allowed, load_tensors
from tasks.checkpoints.pickled.stored import StoredTensor

if TYPE_CHECKING:
    import torch

MODEL = "model"
"""The key under which accelerate saves the model's state."""
METADATA_CLASSES = (
    "Metadata", "TensorProperties", "MetadataIndex", "ChunkStorageMetadata", "StorageMeta",
    "_MEM_FORMAT_ENCODING",
)  # fmt: skip
MODULE = "torch.distributed.checkpoint"


class _Tensor(Inert):
    """Stands for TensorStorageMetadata."""


class _Bytes(Inert):
    """Stands for BytesStorageMetadata: an object that is no tensor."""


class _Chunk(NamedTuple):
    """A part of a tensor, and where it is."""

    file: Path
    start: int
    length: int
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]


def read_dcp(files: Sequence[Path]) -> dict[str, StoredTensor]:
    """Return the model's tensors by name.

    Raises BadInput for metadata that names anything but DCP's own records, and for what is not whole.
    """
    metadata = next(path for path in files if path.name == DCP_METADATA)
    try:
        return _tensors(metadata, load_allowed(metadata, _allowed()))
    except (AttributeError, TypeError, ValueError, KeyError, IndexError):
        raise BadInput(metadata, "is not DCP's record of where tensors are", AGAIN) from None


def _tensors(metadata: Path, record: Any) -> dict[str, StoredTensor]:
    places = {
        (index.fqn, tuple(getattr(index, "offset", None) or ())): info
        for index, info in record.storage_data.items()
    }
    paths = getattr(record, "planner_data", None) or {}
    tensors = {}
    for key, own in record.state_dict_metadata.items():
        path = [str(part) for part in paths.get(key, (key,))]
        name = ".".join(path[1:] if path[0] == MODEL and len(path) > 1 else path)
        if isinstance(own, _Bytes):
            raise BadInput(metadata, f"{name} is no tensor", "save the model's state_dict() alone")
        dtype, shape = own.properties.state[0], _numbers(own.size)
        chunks = [_chunk(metadata, key, each, places) for each in own.chunks]
        if sum(math.prod(chunk.sizes) for chunk in chunks) != math.prod(shape):
            raise BadInput(metadata, f"tensor {name} is not covered by its chunks", AGAIN)
        tensors[name] = StoredTensor(dtype, shape, partial(_read, name, dtype, shape, chunks))
    return tensors


def _chunk(metadata: Path, key: str, chunk: Any, places: Mapping[tuple[str, tuple[int, ...]], Any]) -> _Chunk:
    offsets, sizes = _numbers(chunk.offsets), _numbers(chunk.sizes)
    info = places[key, offsets]
    if getattr(info, "transform_descriptors", None):
        raise BadInput(metadata, "its files are compressed or encoded", "save without extensions")
    if not re.fullmatch(r"[\w-]+\.distcp", info.relative_path):
        raise BadInput(metadata, f"names {info.relative_path!r}, which is not a file beside it", AGAIN)
    file = metadata.with_name(info.relative_path)
    start, length = _numbers((info.offset, info.length))
    if not file.is_file():
        raise BadInput(file, "is missing, but the metadata names it", AGAIN)
    if start + length > file.stat().st_size:
        raise BadInput(file, f"truncated: {file.stat().st_size} bytes, but {start + length} are named", AGAIN)
    return _Chunk(file, start, length, offsets, sizes)


def _read(
    name: str, dtype: "torch.dtype", shape: tuple[int, ...], chunks: Sequence[_Chunk]
) -> "torch.Tensor":
    import torch

    whole = torch.empty(shape, dtype=dtype)
    for chunk in chunks:
        with chunk.file.open("rb") as file:
            file.seek(chunk.start)
            part = load_tensors(io.BytesIO(file.read(chunk.length)), chunk.file)
        if not isinstance(part, torch.Tensor) or tuple(part.shape) != chunk.sizes or part.dtype != dtype:
            raise BadInput(chunk.file, f"its part of {name} is not what the metadata says", AGAIN)
        place = tuple(
            slice(first, first + count) for first, count in zip(chunk.offsets, chunk.sizes, strict=True)
        )
        if whole[place].shape != part.shape:
            raise BadInput(chunk.file, f"its part of {name} lies outside of the tensor", AGAIN)
        whole[place] = part
    return whole


def _numbers(values: Any) -> tuple[int, ...]:
    found = tuple(values)
    if not all(type(value) is int and value >= 0 for value in found):
        raise ValueError(found)
    return found


def _allowed() -> dict[tuple[str, str], Any]:
    """Return what the metadata may name: DCP's records, taken as inert ones, sizes and dtypes."""
    import torch

    dtypes = {("torch", name): value for name, value in vars(torch).items() if isinstance(value, torch.dtype)}
    return dtypes | {
        **{(f"{MODULE}.metadata", name): Inert for name in METADATA_CLASSES},
        (f"{MODULE}.metadata", "TensorStorageMetadata"): _Tensor,
        (f"{MODULE}.metadata", "BytesStorageMetadata"): _Bytes,
        (f"{MODULE}.filesystem", "_StorageInfo"): Inert,
        ("torch", "Size"): tuple,
        ("torch.serialization", "_get_layout"): Inert,
        ("pathlib", "PosixPath"): Inert,
        ("pathlib", "WindowsPath"): Inert,
        ("pathlib._local", "PosixPath"): Inert,
    }
