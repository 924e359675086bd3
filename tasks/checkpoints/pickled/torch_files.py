"""Weights as torch.save writes them: pytorch_model.bin, alone or in shards that an index names."""

import re
from collections.abc import Sequence
from pathlib import Path

from tasks.base.errors import BadInput
from tasks.base.json_files import read_json
from tasks.checkpoints.pickled.kinds import BIN_INDEX
from tasks.checkpoints.pickled.loading import AGAIN, load_tensors
from tasks.checkpoints.pickled.stored import StoredTensor, stored

BIN_SHARD = re.compile(r"pytorch_model-[0-9]+-of-[0-9]+\.bin")
WHOLE = ("pytorch_model.bin", "pytorch_model_fsdp.bin")


def read_torch_files(files: Sequence[Path]) -> dict[str, StoredTensor]:
    """Return the tensors of a state dictionary by name; one file comes before an index, as in transformers.

    Raises BadInput for files that are missing, damaged, or hold anything but named tensors.
    """
    there = {path.name: path for path in files}
    if whole := next((there[name] for name in WHOLE if name in there), None):
        return _read_file(whole)
    if BIN_INDEX not in there:
        raise BadInput(
            files[0],
            "is one process's part of a state, and only FSDP itself can put these together",
            "train with SHARDED_STATE_DICT, or save with FULL_STATE_DICT",
        )
    weight_map = read_json(there[BIN_INDEX]).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise BadInput(there[BIN_INDEX], "has no weight_map", AGAIN)
    tensors: dict[str, StoredTensor] = {}
    for name in sorted({str(value) for value in weight_map.values()}):
        if not BIN_SHARD.fullmatch(name) or name not in there:
            raise BadInput(there[BIN_INDEX], f"names {name!r}, which is not a weight file beside it", AGAIN)
        tensors |= _read_file(there[name])
    if odd := tensors.keys() ^ weight_map.keys():
        raise BadInput(there[BIN_INDEX], f"tensor {min(odd)} is in the index or in a shard only", AGAIN)
    return tensors


def _read_file(path: Path) -> dict[str, StoredTensor]:
    import torch

    state = load_tensors(path, path)
    if not isinstance(state, dict) or not state:
        raise BadInput(path, "holds no state dictionary", "save the model's state_dict()")
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            problem = f"holds {name!r}, a {type(tensor).__name__}, among its tensors"
            raise BadInput(path, problem, "save the model's state_dict() alone")
    return {name: stored(tensor) for name, tensor in state.items()}
