"""The step of a checkpoint is in its name."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.checkpoints.names import CHECKPOINTS_GLOB, numbered, step_at_end, step_of
from tasks.checkpoints.run_directory import numbered_checkpoints


def test_checkpoints_are_ordered_by_number(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    for step in (10, 9, 100):
        make_checkpoint(step)
    training = tmp_path / "training"
    (training / "checkpoint-last").mkdir()
    (training / "checkpoint-5").touch()
    assert numbered_checkpoints(training) == [
        (step, training / f"checkpoint-{step}") for step in (9, 10, 100)
    ]
    assert step_of(training / "checkpoint-100") == 100


@pytest.mark.parametrize(
    "name", ["checkpoint-", "checkpoint-5x", "xcheckpoint-5", "checkpoint-5/x", "checkpoint--5"]
)
def test_other_names_are_no_checkpoints(name: str) -> None:
    assert numbered([name, "checkpoint-7"]) == [(7, "checkpoint-7")]


def test_the_glob_finds_every_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-07").touch()
    (tmp_path / "checkpoint-best").touch()
    assert [path.name for path in tmp_path.glob(CHECKPOINTS_GLOB)] == ["checkpoint-07"]


@pytest.mark.parametrize(
    ("name", "step"), [("step1000", 1000), ("runs/step-0", 0), ("main", None), ("step10-final", None)]
)
def test_a_branch_tells_its_step_at_its_end(name: str, step: int | None) -> None:
    assert step_at_end(name) == step
    assert step_of(Path(name)) == (step or 0)
