"""A state as a safetensors model: the model's own names, tied weights once, dtypes as stored, in shards."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tasks.base.errors import BadInput
from tasks.checkpoints.layout import read_tensors
from tasks.checkpoints.pickled.stored import stored
from tasks.checkpoints.pickled.writing import write_model
from tests.support.tiny import random_tensors


def write(
    tensors: Mapping[str, torch.Tensor], target: Path, tied: bool = False, max_shard: int = 10**9
) -> list[tuple[int, int]]:
    said: list[tuple[int, int]] = []
    own = {name: stored(tensor) for name, tensor in tensors.items()}
    write_model(own, target, "ckpt", tied, lambda done, total: said.append((done, total)), max_shard)
    return said


@pytest.mark.parametrize("max_shard", [10**9, 300, 1])
def test_tensors_are_equal_and_in_shards_of_at_most_the_size(tmp_path: Path, max_shard: int) -> None:
    tensors = random_tensors(1) | {
        "half": torch.ones(3).half(),
        "count": torch.tensor(7),
        "flag": torch.tensor([True]),
    }
    said = write(tensors, tmp_path, max_shard=max_shard)
    found = read_tensors(tmp_path)
    assert found.keys() == tensors.keys()
    files = {path for path, _ in found.values()}
    assert len(said) == len(files)
    assert said[-1][0] == said[-1][1] == sum(tensor.nbytes for tensor in tensors.values())
    for path in files:
        held = load_file(path)
        assert sum(tensor.nbytes for tensor in held.values()) <= max_shard or len(held) == 1
        for name, tensor in held.items():
            assert torch.equal(tensor, tensors[name])
            assert tensor.dtype == tensors[name].dtype
    if len(files) > 1:
        assert (
            json.loads((tmp_path / "model.safetensors.index.json").read_text())["metadata"]["total_size"]
            == said[-1][1]
        )


@pytest.mark.parametrize(
    ("wrapped", "plain"),
    [
        ("module.model.w", "model.w"),
        ("_fsdp_wrapped_module.model._fsdp_wrapped_module.w", "model.w"),
        ("module._orig_mod.model.layers.0._checkpoint_wrapped_module.w", "model.layers.0.w"),
    ],
)
def test_what_wrappers_put_into_names_is_taken_out(tmp_path: Path, wrapped: str, plain: str) -> None:
    write({wrapped: torch.ones(2)}, tmp_path)
    assert read_tensors(tmp_path).keys() == {plain}


def test_a_model_s_own_module_stays_and_names_stay_apart(tmp_path: Path) -> None:
    write({"module.w": torch.ones(2), "head": torch.ones(2)}, tmp_path)
    assert read_tensors(tmp_path).keys() == {"module.w", "head"}
    with pytest.raises(BadInput, match="ckpt: two of its tensors are w"):
        write({"_orig_mod.w": torch.ones(2), "w": torch.ones(2)}, tmp_path)


@pytest.mark.parametrize("tied", [True, False])
def test_a_tied_head_is_stored_once_and_one_that_is_not_tied_twice(tmp_path: Path, tied: bool) -> None:
    table = torch.randn(6, 2)
    write({"model.embed_tokens.weight": table, "lm_head.weight": table}, tmp_path, tied)
    assert ("lm_head.weight" in read_tensors(tmp_path)) == (not tied)


def test_a_head_that_differs_stays_for_the_merge_to_refuse(tmp_path: Path) -> None:
    write({"wte.weight": torch.zeros(6, 2), "lm_head.weight": torch.ones(6, 2)}, tmp_path, tied=True)
    assert read_tensors(tmp_path).keys() == {"wte.weight", "lm_head.weight"}


def test_views_of_one_memory_are_written_each(tmp_path: Path) -> None:
    memory = torch.arange(12.0)
    tensors = {
        "a": memory[:6],
        "b": memory[3:9].view(2, 3),
        "c": memory.view(3, 4).T,
        "d": memory[:1].expand(4),
    }
    write(tensors, tmp_path)
    found = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


@pytest.mark.filterwarnings("ignore")
def test_quantised_sparse_and_complex_tensors_are_refused(tmp_path: Path) -> None:
    for tensor in (
        torch.quantize_per_tensor(torch.ones(3), 1.0, 0, torch.qint8),
        torch.ones(3).to(torch.complex64),
        torch.eye(3).to_sparse(),
        torch.eye(3).to_sparse_csr(),
    ):
        with pytest.raises(
            BadInput, match="ckpt: tensor w is (quantised|sparse).*convert the unquantised model"
        ):
            write({"w": tensor}, tmp_path)


def test_no_tensor_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="holds no tensor"):
        write({}, tmp_path)
