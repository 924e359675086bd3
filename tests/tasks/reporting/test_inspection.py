"""An inspection says what a merge would say of its checkpoints, and touches none of them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tasks.base.errors import BadInput
from tasks.base.measures import TensorMeasures
from tasks.base.publish import is_intact
from tasks.engine.progress import Headway
from tasks.merge_checkpoints import merge_directories
from tasks.parameters.merge import MergeParams
from tasks.reporting.inspection import Inspection, inspect_directories
from tests.support.deviation_reference import each_tensor
from tests.support.tiny import random_tensors, write_checkpoint

ROOT = Path(__file__).parents[3]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a model of a dtype, a stack of integers with it."""

    def write(step: int, dtype: torch.dtype = torch.float32) -> Path:
        tensors = {name: tensor.to(dtype) for name, tensor in random_tensors(step).items()}
        return write_checkpoint(tmp_path / "training", step, {**tensors, "ids": torch.arange(3)})

    return write


def loaded(directory: Path) -> dict[str, np.ndarray]:
    tensors = load_file(directory / "model.safetensors")
    return {name: tensor.double().numpy() for name, tensor in tensors.items() if name != "ids"}


def state(directories: Sequence[Path]) -> dict[Path, object]:
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for directory in directories
        for path in [directory, *directory.rglob("*")]
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("steps", "with_base"), [((1,), True), ((1, 2, 3), True), ((1, 2), False), ((1, 2, 3), False)]
)
def test_every_tensor_equals_its_definition(
    write: Callable[..., Path], dtype: torch.dtype, steps: Sequence[int], with_base: bool
) -> None:
    checkpoints = [write(step, dtype) for step in steps]
    base = write(9, dtype) if with_base else None
    found = inspect_directories(checkpoints, base, None)
    expected = each_tensor([loaded(c) for c in checkpoints], loaded(base) if base else None)
    assert found.tensors.keys() == expected.keys()
    for name, summary in expected.items():
        assert found.tensors[name].sampled is None
        for key, value in summary.model_dump().items():  # without what is unset
            assert getattr(found.tensors[name], key) == pytest.approx(value, rel=1e-5, abs=1e-5), (name, key)


@pytest.mark.parametrize("with_base", [True, False])
def test_it_says_what_merge_json_says(write: Callable[..., Path], tmp_path: Path, with_base: bool) -> None:
    checkpoints = [write(step, torch.bfloat16) for step in (1, 2, 3)]
    base = write(9, torch.bfloat16) if with_base else None
    params = MergeParams(method="average", base=str(base) if base else None)
    merged = merge_directories(params, checkpoints, tmp_path / "merged")
    assert merged.tensors["ids"] == TensorMeasures()
    assert merged.deviations == inspect_directories(checkpoints, base, None).tensors


def test_checkpoints_that_did_not_move_have_norms_cosines_and_conflict_of_zero(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    base = write(9)
    copies = [write_checkpoint(tmp_path / "copies", i, load_file(base / "model.safetensors")) for i in (1, 2)]
    for found in inspect_directories(copies, base, tmp_path / "seen").tensors.values():
        assert (found.norms, found.cosines, found.conflict) == ((0.0, 0.0), (0.0,), 0.0)


def test_out_is_published_whole_and_sources_stay_as_they_were(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    checkpoints, base, out = [write(1), write(2)], write(9), tmp_path / "seen"
    before = state([tmp_path / "training"])
    inspect_directories(checkpoints, None, out)
    found = inspect_directories(checkpoints, base, out)  # an earlier inspection is replaced
    assert state([tmp_path / "training"]) == before
    assert is_intact(out)
    assert {path.name for path in out.iterdir()} == {"inspect.json", "deviation.png", "manifest.json"}
    assert Inspection.read(out / "inspect.json") == found
    assert json.loads((out / "inspect.json").read_text())["base"] == str(base)
    assert (out / "deviation.png").read_bytes().startswith(b"\x89PNG")


def test_checkpoints_of_two_runs_are_told_apart(tmp_path: Path) -> None:
    runs = [write_checkpoint(tmp_path / run, 7) for run in ("a", "b")]
    assert inspect_directories(runs, None, None).labels == tuple(str(run) for run in runs)


def test_progress_reaches_the_end(write: Callable[..., Path]) -> None:
    heard: list[Headway] = []
    inspect_directories([write(1), write(2)], None, None, heard.append)
    assert [headway.last for headway in heard] == sorted(random_tensors(1))
    assert (
        heard[-1].done == heard[-1].total == sum(4 * tensor.numel() for tensor in random_tensors(1).values())
    )


def lose_a_tensor(one: Path, other: Path) -> None:
    save_file({"tall": torch.zeros(12, 5)}, other / "model.safetensors")


def hold_nan(one: Path, other: Path) -> None:
    tensors = {**load_file(other / "model.safetensors"), "norm": torch.full((7,), torch.nan)}
    save_file(tensors, other / "model.safetensors")


def hold_integers(one: Path, other: Path) -> None:
    for directory in (one, other):
        save_file({"ids": torch.arange(3)}, directory / "model.safetensors")


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lose_a_tensor, "checkpoint-2: tensor conv is missing, but checkpoint-1 has it"),
        (hold_nan, "checkpoint-2: tensor norm holds NaN or Inf"),
        (hold_integers, "checkpoint-1: holds no floating-point tensor"),
    ],
)
def test_checkpoints_that_could_not_be_merged_are_refused(
    write: Callable[..., Path], tmp_path: Path, damage, sentence: str
) -> None:
    checkpoints = [write(1), write(2)]
    damage(*checkpoints)
    with pytest.raises(BadInput, match=sentence):
        inspect_directories(checkpoints, None, tmp_path / "seen")
    assert {path.name for path in tmp_path.iterdir()} == {"training"}


@pytest.mark.parametrize(
    ("checkpoints", "base", "out", "sentence"),
    [
        ("1", None, None, "nothing to compare: 1 checkpoint is named"),
        ("11", None, None, "is named twice"),
        ("12", None, "training/checkpoint-1", "is not apart from the input"),
        ("12", None, "training/checkpoint-1/seen", "is not apart from the input"),
        ("12", "9", "training/checkpoint-9", "is not apart from the input"),
        ("12", None, "training", "is not apart from the input"),
        ("12", None, "training/checkpoint-9", "is not empty and holds no earlier inspect.json"),
        ("12", None, "training/checkpoint-9/config.json", "is a file"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(
    write: Callable[..., Path],
    tmp_path: Path,
    checkpoints: str,
    base: str | None,
    out: str | None,
    sentence: str,
) -> None:
    models = {step: write(int(step)) for step in "129"}
    before = state([tmp_path / "training"])
    with pytest.raises(BadInput, match=sentence):
        inspect_directories(
            [models[c] for c in checkpoints], models[base] if base else None, tmp_path / out if out else None
        )
    assert state([tmp_path / "training"]) == before


def test_the_command_prints_the_model_and_its_parts_without_torch(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    code = "import sys\nfrom flows.cli import app\napp(standalone_mode=False)\nprint('torch' in sys.modules)"
    arguments = [
        "inspect",
        str(write(1)),
        str(write(2)),
        "--base",
        str(write(9)),
        "--out",
        "seen",
        "--tensors",
    ]
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert result.stdout.startswith("2 checkpoints, 247 parameters in 5 tensors\n")
    assert "\nexperts" in result.stdout
    assert result.stdout.endswith("False\n")
    assert result.stderr.startswith("inspect: ")
    assert (tmp_path / "seen" / "deviation.png").exists()
