"""pytorch_model.bin, alone or in shards, read as transformers would, or refused in a sentence."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tasks.base.errors import BadInput
from tasks.checkpoints.pickled.kinds import BIN_INDEX, find_pickled
from tasks.checkpoints.pickled.stored import StoredTensor
from tasks.checkpoints.pickled.torch_files import read_torch_files
from tests.support.pickled_states import write_bin
from tests.support.tiny import random_tensors

TENSORS = random_tensors(1) | {
    "half": torch.ones(3).half(),
    "count": torch.tensor(7),
    "brain": torch.ones(2, 2).bfloat16(),
}


def read(directory: Path) -> dict[str, StoredTensor]:
    state = find_pickled(directory)
    assert state is not None
    assert state.kind == "torch"
    return read_torch_files(state.files)


@pytest.mark.parametrize("shards", [1, 2, 3])
def test_tensors_are_as_stored(tmp_path: Path, shards: int) -> None:
    write_bin(tmp_path, TENSORS, shards)
    found = read(tmp_path)
    assert found.keys() == TENSORS.keys()
    for name, tensor in found.items():
        assert torch.equal(tensor.read(), TENSORS[name])
        assert (tensor.dtype, tensor.shape) == (TENSORS[name].dtype, tuple(TENSORS[name].shape))
        assert tensor.size == TENSORS[name].nbytes


def test_the_single_file_comes_before_an_index(tmp_path: Path) -> None:
    write_bin(tmp_path, {"old": torch.ones(1), "older": torch.ones(1)}, 2)
    write_bin(tmp_path, {"new": torch.ones(1)})
    assert read(tmp_path).keys() == {"new"}


def test_the_full_state_of_accelerate_s_fsdp_is_read(tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "pytorch_model_fsdp.bin")
    assert read(tmp_path).keys() == TENSORS.keys()


def test_one_process_s_part_is_refused(tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "pytorch_model_fsdp_0_rank0.bin")
    with pytest.raises(BadInput, match=r"rank0\.bin: is one process's part .*SHARDED_STATE_DICT"):
        read(tmp_path)


def drop_a_shard(directory: Path) -> None:
    (directory / "pytorch_model-00002-of-00002.bin").unlink()


def swap_shards(directory: Path) -> None:
    shutil.copy(
        directory / "pytorch_model-00001-of-00002.bin", directory / "pytorch_model-00002-of-00002.bin"
    )


def name_another(name: Any) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        (directory / BIN_INDEX).write_text(json.dumps({"weight_map": {"wide": name}}))

    return change


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (drop_a_shard, "names 'pytorch_model-00002-of-00002.bin', which is not a weight file beside it"),
        (swap_shards, "tensor .* is in the index or in a shard only"),
        (name_another("../../secret.bin"), "names '../../secret.bin'"),
        (name_another(3), "names '3'"),
        (lambda directory: (directory / BIN_INDEX).write_text("{}"), "has no weight_map"),
    ],
)
def test_what_does_not_fit_the_index_is_refused(
    tmp_path: Path, change: Callable[[Path], Any], problem: str
) -> None:
    write_bin(tmp_path, TENSORS, 2)
    change(tmp_path)
    with pytest.raises(BadInput, match=problem):
        read(tmp_path)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({}, "holds no state dictionary"),
        ([torch.ones(2)], "holds no state dictionary"),
        (
            {"model": {"w": torch.ones(2)}},
            "holds 'model', a dict, among its tensors; save the model's state_dict",
        ),
        ({"w": torch.ones(2), "epoch": 3}, "holds 'epoch', a int"),
        ({1: torch.ones(2)}, "holds 1, a Tensor"),
    ],
)
def test_what_is_no_state_dictionary_is_refused(tmp_path: Path, content: Any, problem: str) -> None:
    torch.save(content, tmp_path / "pytorch_model.bin")
    with pytest.raises(BadInput, match=problem):
        read(tmp_path)
