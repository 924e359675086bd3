"""Writing a state as a safetensors model: names as the model gives them, tied weights once, in shards."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from tasks.base.errors import BadInput
from tasks.checkpoints.pickled.stored import StoredTensor

MAX_SHARD = 2_000_000_000
"""Bytes of a file, as far as no tensor is larger: as much is held in memory."""
WRITABLE = {
    "float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2",
    "int64", "int32", "int16", "int8", "uint8", "bool",
}  # fmt: skip
IN_NAMES = ("_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "_orig_mod.")
"""What FSDP, activation checkpointing and torch.compile put into names."""
PARALLEL = "module."
"""What DistributedDataParallel puts before every name."""
HEADS = ("lm_head.weight", "embed_out.weight")
UNQUANTISED = "convert the unquantised model"


def write_model(
    tensors: Mapping[str, StoredTensor],
    target: Path,
    label: str,
    tied: bool,
    said: Callable[[int, int], None],
    max_shard: int = MAX_SHARD,
) -> None:
    """Write model.safetensors, or its shards and their index, into the directory `target`.

    `label` names the state in errors; `tied`: the head is the embedding, and left out where it is stored
    twice. `said` is called with bytes written and bytes in all. Raises BadInput for tensors that are
    quantised, sparse or damaged.
    """
    named = _named(tensors, label)
    for name, tensor in named.items():
        if str(tensor.dtype).removeprefix("torch.") not in WRITABLE:
            raise BadInput(label, f"tensor {name} is quantised or complex ({tensor.dtype})", UNQUANTISED)
    if tied:
        named = _without_tied_head(named)
    shards = _shards(named, max_shard)
    files = [f"model-{i:05}-of-{len(shards):05}.safetensors" for i in range(1, len(shards) + 1)]
    if len(shards) == 1:
        files = ["model.safetensors"]
    done, total = 0, sum(tensor.size for tensor in named.values())
    for file, names in zip(files, shards, strict=True):
        _write_shard({name: named[name] for name in names}, target / file, label)
        done += sum(named[name].size for name in names)
        said(done, total)
    if len(shards) > 1:
        weight_map = {name: file for file, names in zip(files, shards, strict=True) for name in names}
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (target / "model.safetensors.index.json").write_text(json.dumps(index, indent=1), encoding="utf-8")


def _named(tensors: Mapping[str, StoredTensor], label: str) -> dict[str, StoredTensor]:
    """Give tensors the names that the model itself has for them."""
    parallel = all(name.startswith(PARALLEL) for name in tensors)
    named: dict[str, StoredTensor] = {}
    for wrapped, tensor in tensors.items():
        name = wrapped.removeprefix(PARALLEL) if parallel else wrapped
        for wrapper in IN_NAMES:
            name = name.replace(wrapper, "")
        if name in named:
            raise BadInput(label, f"two of its tensors are {name}", "save it again")
        named[name] = tensor
    if not named:
        raise BadInput(label, "holds no tensor", "save or fetch the checkpoint again")
    return named


def _without_tied_head(named: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """Leave out a head that repeats another tensor bit by bit: its embedding."""
    import torch

    for head in (name for name in named if name.endswith(HEADS)):
        own = named[head]
        alike = (each for name, each in named.items() if name != head and each[:2] == own[:2])
        if any(torch.equal(each.read(), own.read()) for each in alike):
            return {name: tensor for name, tensor in named.items() if name != head}
    return dict(named)


def _shards(named: Mapping[str, StoredTensor], max_shard: int) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    size = 0
    for name, tensor in named.items():
        if shards[-1] and size + tensor.size > max_shard:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += tensor.size
    return shards


def _write_shard(tensors: Mapping[str, StoredTensor], path: Path, label: str) -> None:
    from safetensors.torch import save_file

    read = {name: tensor.read().detach() for name, tensor in tensors.items()}
    for name, tensor in read.items():
        if tensor.is_quantized or tensor.is_sparse or str(tensor.layout) != "torch.strided":
            raise BadInput(label, f"tensor {name} is quantised or sparse", UNQUANTISED)
    seen: set[int] = set()
    for name, tensor in read.items():  # no two may share memory, nor may one be a view of a larger one
        storage = tensor.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() != tensors[name].size:
            read[name] = tensor.clone()
        seen.add(storage.data_ptr())
        read[name] = read[name].contiguous()
    save_file(read, path, metadata={"format": "pt"})
