"""DeepSpeed's partitions, put together as its zero_to_fp32.py does."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tasks.base.errors import BadInput
from tasks.checkpoints.pickled.kinds import find_pickled
from tasks.checkpoints.pickled.stored import StoredTensor
from tasks.checkpoints.pickled.zero import read_zero
from tests.support.pickled_states import Canary, write_zero
from tests.support.tiny import random_tensors

TENSORS = random_tensors(3) | {
    "frozen": torch.ones(5, 3).bfloat16(),
    "positions": torch.arange(6),
    "head": random_tensors(3)["wide"],
}
KINDS: dict[str, Any] = {
    "frozen": frozenset({"frozen"}), "buffers": frozenset({"positions"}), "shared": {"head": "wide"},
}  # fmt: skip


def read(directory: Path) -> dict[str, StoredTensor]:
    state = find_pickled(directory)
    assert state is not None
    assert state.kind == "zero"
    return read_zero(state.files)


@pytest.mark.parametrize("world", [1, 2, 3, 11])
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_every_tensor_is_put_together_from_its_partitions(tmp_path: Path, stage: int, world: int) -> None:
    """Eleven processes: rank 10 comes after rank 9."""
    write_zero(tmp_path, TENSORS, stage=stage, world=world, **KINDS)
    found = read(tmp_path)
    assert found.keys() == TENSORS.keys()
    for name, tensor in found.items():
        assert torch.equal(tensor.read(), TENSORS[name])
        assert (tensor.dtype, tensor.shape) == (TENSORS[name].dtype, tuple(TENSORS[name].shape))


def test_the_newest_step_is_read(tmp_path: Path) -> None:
    write_zero(tmp_path, {"w": torch.zeros(2), "m": torch.zeros(2, 2)}, stage=2, step=9)
    write_zero(tmp_path, {"w": torch.ones(2), "m": torch.ones(2, 2)}, stage=2, step=10)
    assert torch.equal(read(tmp_path)["w"].read(), torch.ones(2))


@pytest.mark.parametrize("stage", [2, 3])
@pytest.mark.parametrize("where", ["model", "optim"])
def test_a_canary_does_not_run(tmp_path: Path, stage: int, where: str) -> None:
    place = write_zero(tmp_path, TENSORS, stage=stage, **KINDS)
    path = min(place.glob(f"*_{where}_states.pt"))
    torch.save({"optimizer_state_dict": Canary(tmp_path / "sang")}, path)
    with pytest.raises(BadInput, match=rf"{path.name}: names posix\.mkdir"):
        read(tmp_path)
    assert not (tmp_path / "sang").exists()


@pytest.mark.parametrize("stage", [1, 3])
def test_a_process_s_file_that_is_missing_is_said(tmp_path: Path, stage: int) -> None:
    place = write_zero(tmp_path, TENSORS, stage=stage, world=3, **KINDS)
    (place / "zero_pp_rank_1_mp_rank_00_optim_states.pt").unlink()
    with pytest.raises(BadInput, match=r"global_step3: 2 of 3 \*_optim_states.pt are there"):
        read(tmp_path)


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    place = write_zero(tmp_path, TENSORS, stage=2, **KINDS)
    path = place / "zero_pp_rank_1_mp_rank_00_optim_states.pt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(BadInput, match=f"{path.name}: is truncated"):
        read(tmp_path)


@pytest.mark.parametrize("stage", [2, 3])
def test_partitions_of_another_length_are_refused(tmp_path: Path, stage: int) -> None:
    place = write_zero(tmp_path, TENSORS, stage=stage, **KINDS)
    other = write_zero(tmp_path, TENSORS | {"tall": torch.ones(40, 5)}, stage=stage, step=4, **KINDS)
    for path in place.glob("*_optim_states.pt"):
        path.replace(other / path.name)
    with pytest.raises(BadInput, match="its partitions have .* elements where .* are described"):
        read(tmp_path)


@pytest.mark.parametrize(
    "name", ["mp_rank_01_model_states.pt", "layer_0_expert_1_mp_rank_01_model_states.pt"]
)
def test_models_that_are_split_otherwise_are_refused_with_the_way(tmp_path: Path, name: str) -> None:
    place = write_zero(tmp_path, TENSORS, stage=2, **KINDS)
    torch.save({}, place / name)
    with pytest.raises(BadInput, match=r"split by tensors or experts; run python zero_to_fp32\.py"):
        read(tmp_path)


def test_what_is_laid_out_otherwise_is_refused(tmp_path: Path) -> None:
    place = write_zero(tmp_path, TENSORS, stage=2, **KINDS)
    torch.save({"module": {}}, place / "mp_rank_00_model_states.pt")
    with pytest.raises(BadInput, match="is not laid out as ZeRO's checkpoints are"):
        read(tmp_path)
    torch.save({"optimizer_state_dict": {}}, place / "zero_pp_rank_0_mp_rank_00_optim_states.pt")
    with pytest.raises(BadInput, match="holds no partitions of ZeRO 1, 2 or 3"):
        read(tmp_path)
    for path in place.glob("*_optim_states.pt"):
        path.unlink()
    with pytest.raises(BadInput, match="lacks"):
        read(tmp_path)


def test_a_parameter_in_no_partition_is_refused(tmp_path: Path) -> None:
    write_zero(tmp_path, TENSORS, stage=3, **KINDS | {"shared": {"head": "gone"}})
    with pytest.raises(BadInput, match="tensor head is in no partition"):
        read(tmp_path)


def test_what_zero_1_froze_is_taken_from_the_model(tmp_path: Path) -> None:
    """DeepSpeed saves it there alone, and zero_to_fp32.py leaves it out."""
    place = write_zero(tmp_path, TENSORS, stage=1, **KINDS)
    path = place / "mp_rank_00_model_states.pt"
    state = torch.load(path, weights_only=True)
    torch.save(state | {"frozen_param_shapes": None, "frozen_param_fragments": None}, path)
    assert torch.equal(read(tmp_path)["frozen"].read(), TENSORS["frozen"])
