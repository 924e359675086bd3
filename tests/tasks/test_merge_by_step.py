"""A merge by hand reads steps from names and learning rates from the newest checkpoint's log."""

import json
from pathlib import Path

import pytest

from tasks.base.errors import BadInput
from tasks.base.measures import WeightsUsed
from tasks.base.records.merge import MergeReport
from tasks.merge_checkpoints import merge_directories
from tasks.merging.step_weights import decay_weights
from tasks.parameters.merge import MergeParams
from tests.support.tiny import write_checkpoint

STEPS = (100, 200, 500)
WSM = MergeParams(method="wsm")


@pytest.fixture
def run(tmp_path: Path) -> list[Path]:
    return [write_checkpoint(tmp_path, step) for step in STEPS]


def log_rates(checkpoint: Path, rates: list[tuple[int, float]]) -> None:
    log = [{"step": step, "learning_rate": value} for step, value in rates]
    (checkpoint / "trainer_state.json").write_text(json.dumps({"log_history": log}))


def weights_of(report: MergeReport) -> tuple[float, ...]:
    found = next(own.method for own in report.tensors.values() if own.method)
    assert isinstance(found, WeightsUsed)
    return found.weights


def test_another_log_makes_another_merge(run: list[Path], tmp_path: Path) -> None:
    log_rates(run[-1], [])
    report = merge_directories(WSM, run, tmp_path / "out")
    assert weights_of(report) == pytest.approx(decay_weights(STEPS, []))
    assert "the log holds no learning rate: it counts as constant" in report.notes
    rates = [(0, 1.0), (500, 0.2)]
    log_rates(run[-1], rates)
    report = merge_directories(WSM, run, tmp_path / "out")
    assert weights_of(report) == pytest.approx(decay_weights(STEPS, rates))
    log_rates(run[-1], [(0, 1.0), (500, 0.0)])
    report = merge_directories(WSM, run, tmp_path / "out")
    assert weights_of(report) == pytest.approx((0, 0, 1), abs=0.01)
    assert any(note.startswith("equal to the last checkpoint") for note in report.notes)


def test_without_steps_it_is_refused_before_anything_is_written(run: list[Path], tmp_path: Path) -> None:
    unnamed = [place.rename(tmp_path / name) for place, name in zip(run, "abc", strict=True)]
    with pytest.raises(BadInput, match=r"wsm weighs by training step, and steps \[0, 0, 0\] do not rise"):
        merge_directories(WSM, unnamed, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_was_dropped_for_nan_counts_no_step(run: list[Path], tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    tensors = load_file(run[1] / "model.safetensors")
    name = next(iter(tensors))
    tensors[name].reshape(-1)[0] = float("nan")
    save_file(tensors, run[1] / "model.safetensors", metadata={"format": "pt"})
    report = merge_directories(WSM.model_copy(update={"on_nan": "drop"}), run, tmp_path / "out")
    assert weights_of(report) == pytest.approx((0.5, 0.5))
