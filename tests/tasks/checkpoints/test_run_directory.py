"""What the callback kept of a run is found beside it; what another training left there is not."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from loreline.keeping import kept_directory, link_checkpoint
from loreline.running_mean import MEAN_FILE
from tasks.base.errors import BadInput
from tasks.checkpoints.layout import MEAN
from tasks.checkpoints.run_directory import kept_means, numbered_checkpoints, place_in
from tests.support.tiny import write_checkpoint


def log(checkpoint: Path, *losses: float, key: str = "loss") -> Path:
    path = checkpoint / "trainer_state.json"
    history = [{"step": step, key: loss} for step, loss in enumerate(losses)]
    path.write_text(json.dumps({**json.loads(path.read_text()), "log_history": history}))
    return checkpoint


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return a run of four checkpoints, all kept, of which the Trainer removed two."""
    run = tmp_path / "run"
    for step in (10, 20, 30, 40):
        losses = [float("nan"), *[1 / n for n in range(1, step)]]
        link_checkpoint(log(write_checkpoint(run, step), *losses), kept_directory(run))
    for step in (10, 20):
        shutil.rmtree(run / f"checkpoint-{step}")
    return run


def found(run: Path) -> dict[int, bool]:
    """Return step → whether it lies in the run itself."""
    return {step: path.parent == run for step, path in numbered_checkpoints(run)}


def test_kept_checkpoints_stand_in_for_those_that_were_removed(run: Path) -> None:
    assert found(run) == {10: False, 20: False, 30: True, 40: True}
    assert place_in(run, "checkpoint-10") == kept_directory(run) / "checkpoint-10"
    assert place_in(run, "checkpoint-40") == run / "checkpoint-40"
    assert place_in(run, "checkpoint-50") == run / "checkpoint-50"


def test_one_that_is_being_removed_is_read_where_it_is_kept(run: Path) -> None:
    (run / "checkpoint-30" / "trainer_state.json").unlink()
    assert found(run) == {10: False, 20: False, 30: False, 40: True}


def test_a_run_behind_a_link_finds_what_lies_beside_the_run_itself(run: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "latest").symlink_to(run)
    assert [step for step, _ in numbered_checkpoints(tmp_path / "elsewhere" / "latest")] == [10, 20, 30, 40]


def test_what_an_earlier_training_left_is_not_mixed_in(run: Path) -> None:
    shutil.rmtree(run)
    log(write_checkpoint(run, 25), *[0.5] * 25)
    assert found(run) == {25: True}


def test_steps_after_the_newest_of_the_run_are_of_another_trajectory(run: Path) -> None:
    """Training went back to 30 and was cut short before its next save; nothing was logged."""
    for checkpoint in [*run.iterdir(), *kept_directory(run).iterdir()]:
        log(checkpoint)
    shutil.rmtree(run / "checkpoint-40")
    assert found(run) == {10: False, 20: False, 30: True}


@pytest.mark.parametrize("state", ["", "[]", '{"log_history": 3}'])
def test_without_a_checkpoint_to_compare_with_nothing_kept_counts(run: Path, state: str) -> None:
    for step in (30, 40):
        (run / f"checkpoint-{step}" / "trainer_state.json").unlink()
        (run / f"checkpoint-{step}" / "trainer_state.json").write_text(state)
    assert found(run) == {30: True, 40: True}


def test_half_made_directories_are_no_checkpoints(run: Path) -> None:
    kept = kept_directory(run)
    (kept / "checkpoint-10").rename(kept / ".checkpoint-10.making")
    assert 10 not in found(run)


def mean(run: Path, step: int, **said: Any) -> None:
    directory = write_checkpoint(kept_directory(run) / "x", step).rename(kept_directory(run) / f"mean-{step}")
    (directory / MEAN).write_text(json.dumps(said))


def test_means_are_those_beside_the_run_s_own_kept_checkpoints(run: Path) -> None:
    for step in (20, 40, 50):
        mean(run, step, count=7)
    assert MEAN == MEAN_FILE
    assert [(step, count, path.name) for step, count, path in kept_means(run)] == [
        (20, 7, "mean-20"), (40, 7, "mean-40"),
    ]  # fmt: skip


@pytest.mark.parametrize("count", [None, 0, "7", 1.5])
def test_a_mean_of_unknown_steps_is_refused(run: Path, count: Any) -> None:
    mean(run, 20, count=count)
    with pytest.raises(BadInput, match="does not say of how many steps the mean is; remove that mean"):
        kept_means(run)
