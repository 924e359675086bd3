"""Weights in the partitions that DeepSpeed's ZeRO keeps of its float32 master copy.

Source: deepspeed/utils/zero_to_fp32.py, which every such checkpoint holds a copy of; that copy is never run.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tasks.base.errors import BadInput
from tasks.checkpoints.pickled.loading import AGAIN, Inert, StandInEnum, load_tensors
from tasks.checkpoints.pickled.stored import StoredTensor, stored

if TYPE_CHECKING:
    import torch

DEEPSPEED = (
    "runtime.fp16.loss_scaler.LossScaler", "runtime.fp16.loss_scaler.DynamicLossScaler",
    "runtime.zero.loss_scaler.LossScaler", "utils.tensor_fragment.fragment_address",
)  # fmt: skip
"""Classes whose objects lie in its files and say nothing of the weights."""
BY_HAND = "run python zero_to_fp32.py . . --safe_serialization there, where you trust it"


class _Stage(StandInEnum):
    """Stands for ZeroStageEnum."""

    MEMBERS: ClassVar = {"disabled": 0, "optimizer_states": 1, "gradients": 2, "weights": 3}


STAND_INS = [
    *((Inert, f"deepspeed.{name}") for name in DEEPSPEED),
    (_Stage, "deepspeed.runtime.zero.config.ZeroStageEnum"),
]


def read_zero(files: Sequence[Path]) -> dict[str, StoredTensor]:
    """Return the model's tensors by name: trained ones in float32, frozen ones and buffers as stored.

    Raises BadInput where a process's file is missing or damaged, and for tensor parallelism and experts,
    whose parts only DeepSpeed can put together.
    """
    models = sorted((path for path in files if path.name.endswith("_model_states.pt")), key=_in_order)
    optimizers = sorted((path for path in files if path.name.endswith("_optim_states.pt")), key=_in_order)
    directory = files[0].parent
    if not models or not optimizers:
        raise BadInput(directory, "lacks *_model_states.pt or *_optim_states.pt", AGAIN)
    if odd := [path for path in files if not re.search(r"mp_rank_00_(model|optim)_states\.pt$", path.name)]:
        raise BadInput(odd[0], "is of a model that is split by tensors or experts", BY_HAND)
    try:
        return _read(directory, models, optimizers)
    except (AttributeError, TypeError, ValueError, KeyError, IndexError, RuntimeError) as error:
        raise BadInput(directory, f"is not laid out as ZeRO's checkpoints are ({error!r})", BY_HAND) from None


def _read(directory: Path, models: Sequence[Path], optimizers: Sequence[Path]) -> dict[str, StoredTensor]:
    own = [load_tensors(path, path, STAND_INS) for path in models]
    states = [load_tensors(path, path, STAND_INS)["optimizer_state_dict"] for path in optimizers]
    if any("autoep_layers" in key for key in own[0]):
        raise BadInput(models[0], "is of a model that is split by experts", BY_HAND)
    stage = states[0].get("zero_stage")
    if stage not in (1, 2, 3):
        raise BadInput(optimizers[0], "holds no partitions of ZeRO 1, 2 or 3", BY_HAND)
    _check_count(directory, states[0]["partition_count"], optimizers)
    if stage == 3 and len(models) != len(optimizers):
        raise BadInput(
            directory, f"{len(models)} model states, but {len(optimizers)} optimizer states", AGAIN
        )
    # ZeRO 1 and 2 save the whole model, ZeRO 1 its frozen parameters nowhere else; ZeRO 3 saves empty shells.
    kept = own[0]["buffer_names"] if stage == 3 else own[0]["module"]
    tensors = {name: stored(tensor) for name, tensor in own[0]["module"].items() if name in kept}
    if stage == 3:
        groups = [state["fp32_flat_groups"] for state in states]
        tensors |= _frozen(own) | dict(_by_parameter(directory, own[0]["param_shapes"], groups))
    else:
        groups = [state["single_partition_of_fp32_groups"] for state in states]
        tensors |= _by_group(directory, own[0]["param_shapes"], groups)
    tensors |= {name: tensors[of] for name, of in own[0]["shared_params"].items() if of in tensors}
    if missing := own[0]["module"].keys() - tensors.keys():
        raise BadInput(models[0], f"tensor {min(missing)} is in no partition", BY_HAND)
    return tensors


def _check_count(directory: Path, count: Any, optimizers: Sequence[Path]) -> None:
    expected = max(count) if isinstance(count, list) else count
    if expected != len(optimizers):
        raise BadInput(directory, f"{len(optimizers)} of {expected} *_optim_states.pt are there", AGAIN)


def _by_group(
    directory: Path, shapes: Sequence[Mapping[str, Any]], groups: Sequence[Sequence["torch.Tensor"]]
) -> Iterator[tuple[str, StoredTensor]]:
    """ZeRO 1 and 2: each group of parameters is one vector, cut into as many parts as there are processes."""
    if len(shapes) != len(groups[0]):
        raise ValueError(f"{len(shapes)} groups of shapes, {len(groups[0])} of partitions")
    for position, group in enumerate(shapes):
        parts = [own[position] for own in groups]
        first = 0
        for name, shape in group.items():
            yield name, _joined(parts, first, tuple(shape))
            first += math.prod(shape)
        _check_used(directory, first, sum(part.numel() for part in parts), 2 * len(parts))


def _by_parameter(
    directory: Path, shapes: Sequence[Mapping[str, Any]], groups: Sequence[Sequence["torch.Tensor"]]
) -> Iterator[tuple[str, StoredTensor]]:
    """ZeRO 3: each parameter is cut into as many parts as there are processes, the last one padded."""
    first = 0
    for group in shapes:
        for name, shape in group.items():
            part = math.ceil(math.prod(shape) / len(groups))
            read = partial(_gather, groups, first, part, tuple(shape))
            yield name, StoredTensor(groups[0][0].dtype, tuple(shape), read)
            first += part
    for own in groups:
        _check_used(directory, first, sum(flat.numel() for flat in own), 1)


def _gather(
    groups: Sequence[Sequence["torch.Tensor"]], first: int, part: int, shape: tuple[int, ...]
) -> "torch.Tensor":
    import torch

    parts = [_cut(own, first, part) for own in groups]
    return torch.cat(parts)[: math.prod(shape)].view(shape)


def _joined(parts: Sequence["torch.Tensor"], first: int, shape: tuple[int, ...]) -> StoredTensor:
    return StoredTensor(parts[0].dtype, shape, lambda: _cut(parts, first, math.prod(shape)).view(shape))


def _cut(parts: Sequence["torch.Tensor"], first: int, count: int) -> "torch.Tensor":
    """Return elements of vectors that follow each other."""
    import torch

    starts = accumulate((part.numel() for part in parts), initial=0)
    pieces = [
        part[max(first - start, 0) : max(first + count - start, 0)]
        for start, part in zip(starts, parts, strict=False)
    ]
    return torch.cat([piece for piece in pieces if piece.numel()] or [parts[0][:0]])


def _frozen(own: Sequence[Mapping[str, Any]]) -> dict[str, StoredTensor]:
    """ZeRO 3: parameters that are not trained, cut like the others but kept with the model."""
    shapes = own[0].get("frozen_param_shapes") or {}
    fragments = {name: [each["frozen_param_fragments"][name] for each in own] for name in shapes}
    return {name: _joined(fragments[name], 0, tuple(shape)) for name, shape in shapes.items()}


def _check_used(directory: Path, used: int, there: int, align: int) -> None:
    """Raise BadInput unless parameters fill their partitions, up to DeepSpeed's padding."""
    if used > there or math.ceil(used / align) != math.ceil(there / align):
        raise BadInput(directory, f"its partitions have {there} elements where {used} are described", AGAIN)


def _in_order(path: Path) -> list[tuple[int, str]]:
    """Order by the numbers in names: rank 10 after rank 9."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", path.name)]
