"""Checkpoints whose weights are in pickles, as torch, accelerate (FSDP) and DeepSpeed lay them out."""

import json
import math
import os
import sys
import types
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from tests.support.tiny import write_checkpoint

Tensors = Mapping[str, torch.Tensor]


class Canary:
    """Would make a directory when it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.place),)


def without_weights(root: Path, step: int, **kwargs: Any) -> Path:
    """Write what a Trainer writes beside weights."""
    directory = write_checkpoint(root, step, {"x": torch.zeros(1)}, **kwargs)
    (directory / "model.safetensors").unlink()
    return directory


def write_bin(directory: Path, tensors: Tensors, shards: int = 1) -> None:
    """Write pytorch_model.bin, or shards and their index."""
    if shards == 1:
        torch.save(dict(tensors), directory / "pytorch_model.bin")
        return
    names = list(tensors)
    weight_map = {}
    for i in range(shards):
        file = f"pytorch_model-{i + 1:05}-of-{shards:05}.bin"
        part = names[i::shards]
        torch.save({name: tensors[name] for name in part}, directory / file)
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (directory / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def write_fsdp(directory: Path, tensors: Mapping[str, Any]) -> Path:
    """Write what accelerate's save_fsdp_model writes for SHARDED_STATE_DICT, by DCP itself."""
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.default_planner import DefaultSavePlanner

    place = directory / "pytorch_model_fsdp_0"
    dcp.save(
        state_dict={"model": dict(tensors)},
        storage_writer=dcp.FileSystemWriter(place),
        planner=DefaultSavePlanner(),
        no_dist=True,
    )
    return place


def write_zero(
    directory: Path,
    tensors: Tensors,
    *,
    stage: int,
    world: int = 2,
    frozen: frozenset[str] = frozenset(),
    buffers: frozenset[str] = frozenset(),
    shared: Mapping[str, str] = {},
    step: int = 3,
    extra: Any = None,
) -> Path:
    """Write partitions as DeepSpeed's engine does: what zero_to_fp32.py reads, with the classes it pickles.

    `shared`: alias → the name under which a parameter is trained. Groups are those of a Trainer: with weight
    decay, and without.
    """
    place = directory / f"global_step{step}"
    place.mkdir()
    trained = [n for n in tensors if n not in frozen | buffers | shared.keys()]
    groups = [[n for n in trained if tensors[n].dim() > 1], [n for n in trained if tensors[n].dim() <= 1]]
    shapes = [OrderedDict((n, tensors[n].shape) for n in names) for names in groups]
    parts = _cut_by_parameter if stage == 3 else _cut_by_group
    flats = [[parts([tensors[n] for n in names], rank, world) for names in groups] for rank in range(world)]
    with _deepspeed() as classes:
        for rank in range(world):
            model = {
                "module": dict(tensors) if stage < 3 else {n: torch.empty(0) if n not in buffers else tensors[n] for n in tensors},
                "buffer_names": sorted(buffers),
                "param_shapes": shapes,
                "frozen_param_shapes": OrderedDict((n, tensors[n].shape) for n in sorted(frozen)),
                "frozen_param_fragments": OrderedDict((n, _piece(tensors[n], rank, world) if stage == 3 else tensors[n]) for n in sorted(frozen)),
                "shared_params": dict(shared),
                "ds_version": "0.17.0",
                "ds_config": {"zero_optimization": {"stage": stage}},
                "extra": extra,
            }  # fmt: skip
            optimizer = {
                "loss_scaler": classes["LossScaler"](),
                "zero_stage": classes["ZeroStageEnum"](stage),
                "partition_count": world if stage == 3 else [world] * len(groups),
                "base_optimizer_state": {"state": {0: {"exp_avg": torch.ones(3)}}},
                "fp32_flat_groups" if stage == 3 else "single_partition_of_fp32_groups": flats[rank],
                "param_slice_mappings": [OrderedDict(a=classes["fragment_address"]())],
            }
            if stage == 3 or rank == 0:
                name = f"zero_pp_rank_{rank}_mp_rank_00" if stage == 3 else "mp_rank_00"
                torch.save(model, place / f"{name}_model_states.pt")
            torch.save({"optimizer_state_dict": optimizer, "ds_version": "0.17.0"}, place / f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt")  # fmt: skip
    (directory / "latest").write_text(place.name)
    (directory / "zero_to_fp32.py").write_text("raise SystemExit('must not run')")
    return place


def _cut_by_group(tensors: list[torch.Tensor], rank: int, world: int) -> torch.Tensor:
    """One vector a group, padded so that it splits evenly into aligned parts."""
    flat = torch.cat([t.float().reshape(-1) for t in tensors])
    padded = torch.nn.functional.pad(flat, (0, -len(flat) % (2 * world)))
    part = padded.chunk(world)[rank]
    last = len(flat) - (world - 1) * len(part)  # the padding is taken off the last part when it is saved
    return part[:last].clone() if rank == world - 1 and last > 0 else part.clone()


def _cut_by_parameter(tensors: list[torch.Tensor], rank: int, world: int) -> torch.Tensor:
    return torch.cat([_piece(t.float(), rank, world) for t in tensors])


def _piece(tensor: torch.Tensor, rank: int, world: int) -> torch.Tensor:
    size = math.ceil(tensor.numel() / world)
    flat = torch.nn.functional.pad(tensor.reshape(-1), (0, size * world - tensor.numel()))
    return flat[rank * size : (rank + 1) * size].clone()


@contextmanager
def _deepspeed() -> Iterator[dict[str, type]]:
    """Make the classes of DeepSpeed that its files name importable for a moment."""
    import enum

    homes = {
        "LossScaler": "deepspeed.runtime.fp16.loss_scaler",
        "ZeroStageEnum": "deepspeed.runtime.zero.config",
        "fragment_address": "deepspeed.utils.tensor_fragment",
    }
    classes: dict[str, Any] = {
        "LossScaler": type("LossScaler", (), {"__init__": lambda self: setattr(self, "cur_scale", 1)}),
        "ZeroStageEnum": enum.IntEnum("ZeroStageEnum", {"disabled": 0, "optimizer_states": 1, "gradients": 2, "weights": 3}),
        "fragment_address": type("fragment_address", (), {"__init__": lambda self: self.__dict__.update(start=0, numel=3)}),
    }  # fmt: skip
    before = dict(sys.modules)
    try:
        for name, home in homes.items():
            parts = home.split(".")
            for end in range(1, len(parts) + 1):
                sys.modules.setdefault(".".join(parts[:end]), types.ModuleType(".".join(parts[:end])))
            classes[name].__module__, classes[name].__qualname__ = home, name
            setattr(sys.modules[home], name, classes[name])
        yield classes
    finally:
        for name in set(sys.modules) - set(before):
            if name.startswith("deepspeed"):
                del sys.modules[name]
