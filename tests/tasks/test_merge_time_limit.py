"""A merge whose time is over averages what is not solved, and says so before anything else."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tasks.base.measures import Averaged, LoreMeasures, TensorMeasures
from tasks.base.records.merge import MergeReport
from tasks.merge_checkpoints import merge_directories
from tasks.parameters.merge import MergeParams
from tests.support.sweeping import contents
from tests.support.tiny import write_checkpoint

SECONDS = 3.0


@pytest.fixture
def inputs(tmp_path: Path) -> list[Path]:
    """Three checkpoints: a and b are solved in no time, c takes minutes."""
    found = []
    for step in (1, 2, 3):
        noise = torch.Generator().manual_seed(step)
        shapes = {"a": (9, 6), "b": (4, 5), "bias": (5,), "c": (400, 390), "d": (3, 400, 390)}
        models = {name: torch.randn(shape, generator=noise) for name, shape in shapes.items()}
        found.append(write_checkpoint(tmp_path / "run", step, models))
    return found


def params(minutes: float, passes: int | None = None) -> MergeParams:
    lore = {"passes": passes, "mu": 0.01, "mu_scale": "absolute", "time_limit": minutes}
    return MergeParams.model_validate({"device": "cpu", "method": "lore", "lore": lore})


def test_what_is_not_solved_in_time_is_the_mean(inputs: list[Path], tmp_path: Path) -> None:
    report = merge_directories(params(SECONDS / 60, passes=300), inputs, tmp_path / "out")
    late = Averaged(identical=False, out_of_time=True)
    for name in ("c", "d"):
        assert report.tensors[name].method == late
    for name in ("a", "b"):
        assert isinstance(report.tensors[name].method, LoreMeasures)
    assert report.tensors["bias"].method == Averaged(identical=False)
    assert report.notes[0] == (
        "2 of 4 matrices did not make merge.lore.time_limit (0.05 min) and were averaged: c, d"
    )
    assert report.notes[0] in (tmp_path / "out" / "README.md").read_text()
    assert MergeReport.read(tmp_path / "out" / "merge.json") == report
    merged = load_file(tmp_path / "out" / "model.safetensors")
    models = [load_file(directory / "model.safetensors") for directory in inputs]
    for name in ("c", "d"):
        torch.testing.assert_close(merged[name], sum(model[name] for model in models) / 3)


def test_many_are_counted_and_few_are_named(inputs: list[Path], tmp_path: Path) -> None:
    report = merge_directories(params(1e-9), inputs, tmp_path / "out")
    assert report.notes[0] == (
        "4 of 4 matrices did not make merge.lore.time_limit (1e-09 min) and were averaged: a, b, c and 1 more"
    )


def test_a_limit_that_is_kept_changes_nothing_but_the_parameter(tmp_path: Path) -> None:
    found = []
    for step in (1, 2, 3):
        noise = torch.Generator().manual_seed(step)
        found.append(write_checkpoint(tmp_path / "run", step, {"a": torch.randn(9, 6, generator=noise)}))
    limited, free = tmp_path / "limited", tmp_path / "free"
    report = merge_directories(params(60.0), found, limited)
    unlimited = params(60.0).lore.model_copy(update={"time_limit": None})
    other = merge_directories(MergeParams(method="lore", device="cpu", lore=unlimited), found, free)
    assert report.tensors == other.tensors
    assert report.notes == other.notes
    assert contents(limited)["model.safetensors"] == contents(free)["model.safetensors"]


def test_records_of_merges_without_a_limit_are_as_before() -> None:
    averaged = TensorMeasures(method=Averaged(identical=False))
    assert averaged.model_dump_json() == '{"method":{"kind":"averaged","identical":false}}'
