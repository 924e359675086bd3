"""Pickled states are recognised by the names of their files, and nothing is opened for it."""

from pathlib import Path

import pytest

from tasks.checkpoints.pickled.kinds import find_pickled


@pytest.mark.parametrize(
    ("names", "kind", "files"),
    [
        (["pytorch_model.bin", "optimizer.pt", "training_args.bin", "scheduler.pt"], "torch", ["pytorch_model.bin"]),
        (["pytorch_model.bin.index.json", "pytorch_model-00001-of-00001.bin"], "torch",
         ["pytorch_model.bin.index.json", "pytorch_model-00001-of-00001.bin"]),
        (["pytorch_model_fsdp_0/.metadata", "pytorch_model_fsdp_0/__0_0.distcp", "optimizer_0/.metadata"], "dcp",
         ["pytorch_model_fsdp_0/.metadata", "pytorch_model_fsdp_0/__0_0.distcp"]),
        (["global_step3/mp_rank_00_model_states.pt", "global_step3/zero_pp_rank_0_mp_rank_00_optim_states.pt", "latest"],
         "zero", ["global_step3/mp_rank_00_model_states.pt", "global_step3/zero_pp_rank_0_mp_rank_00_optim_states.pt"]),
        (["pytorch_model.bin", "global_step3/mp_rank_00_model_states.pt"], "torch", ["pytorch_model.bin"]),
    ],
)  # fmt: skip
def test_each_kind_has_its_files(tmp_path: Path, names: list[str], kind: str, files: list[str]) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    state = find_pickled(tmp_path)
    assert state is not None
    assert state.kind == kind
    assert [path.relative_to(tmp_path).as_posix() for path in state.files] == files


@pytest.mark.parametrize(
    "name", ["model.pt", "optimizer.bin", "global_stepX/mp_rank_00_model_states.pt", "optimizer_0/.metadata"]
)
def test_others_are_none(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    assert find_pickled(tmp_path) is None
