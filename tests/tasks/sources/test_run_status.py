"""Whether a run has ended, as the real Trainer leaves it."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.support.ended_runs import back, look
from tests.support.tiny import write_checkpoint


def names(output: Path) -> list[str]:
    return sorted(path.name for path in output.iterdir())


@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        ({}, ["checkpoint-3", "checkpoint-6", "checkpoint-7"]),
        ({"save_total_limit": 2}, ["checkpoint-6", "checkpoint-7"]),
        ({"max_steps": -1, "num_train_epochs": 1, "save_strategy": "epoch"}, ["checkpoint-7"]),
        ({"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 3}, ["checkpoint-3", "checkpoint-6", "checkpoint-7"]),
    ],
)  # fmt: skip
def test_a_run_that_reached_its_last_step_has_ended(
    train: Any, tmp_path: Path, arguments: dict[str, Any], left: list[str]
) -> None:
    train(**arguments)
    assert names(tmp_path / "out") == left
    seen = look(back(tmp_path / "out"))
    assert (seen.ended, seen.reason) == (True, "training state says so (step 7 of 7)")


def test_a_run_that_was_interrupted_has_not_ended_until_it_was_quiet(train: Any, tmp_path: Path) -> None:
    def interrupt(trainer: Any, control: Any) -> None:
        if trainer.state.global_step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(interrupt)
    seen = look(back(tmp_path / "out", 600))
    assert (seen.ended, seen.reason) == (False, "still training: step 3 of 7, last change 10 min ago")
    quiet = look(tmp_path / "out", quiet_for=599)
    assert (quiet.ended, quiet.reason) == (True, "unchanged for 10 min (step 3 of 7)")
    assert quiet.digest == seen.digest


def test_a_run_that_was_stopped_early_has_ended(train: Any, tmp_path: Path) -> None:
    from transformers import EarlyStoppingCallback

    train(
        callbacks=[EarlyStoppingCallback(1)], eval_strategy="steps", eval_steps=3, load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
    )  # fmt: skip
    assert names(tmp_path / "out") == ["checkpoint-3", "checkpoint-6"]
    seen = look(back(tmp_path / "out"))
    assert (seen.ended, seen.reason) == (True, "training state says so (step 6 of 7)")


def test_a_run_that_was_preempted_has_not_ended(train: Any, tmp_path: Path) -> None:
    """At SIGTERM, enable_jit_checkpoint saves a state that says should_training_stop, to be resumed."""
    from transformers.trainer_jit_checkpoint import JITCheckpointCallback

    def preempt(trainer: Any, control: Any) -> None:
        if trainer.state.global_step == 4:
            [jit] = [c for c in trainer.callback_handler.callbacks if isinstance(c, JITCheckpointCallback)]
            jit.jit_manager.is_checkpoint_requested = True  # as its SIGTERM handler does, after three seconds

    train(preempt, enable_jit_checkpoint=True)
    state = json.loads((tmp_path / "out" / names(tmp_path / "out")[-1] / "trainer_state.json").read_text())
    assert state["stateful_callbacks"]["TrainerControl"]["args"]["should_training_stop"]
    seen = look(back(tmp_path / "out"))
    assert not seen.ended
    assert seen.reason.startswith(f"still training: step {state['global_step']} of 7, last change")


def test_a_stop_between_checkpoints_is_seen_by_the_state_that_the_script_saved(
    train: Any, tmp_path: Path
) -> None:
    def stop(trainer: Any, control: Any) -> None:
        control.should_training_stop = trainer.state.global_step == 4

    trainer = train(stop)
    assert not look(back(tmp_path / "out")).ended
    trainer.save_model()
    trainer.save_state()
    seen = look(back(tmp_path / "out"))
    assert (seen.ended, seen.reason) == (True, "training state says so (step 3 of 7)")
    write_checkpoint(tmp_path / "out", 6)  # resumed: the state in the output directory is of the past
    assert not look(back(tmp_path / "out")).ended


def test_the_state_that_an_earlier_run_left_in_the_directory_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "trainer_state.json").write_text('{"global_step": 500, "max_steps": 500}')
    back(tmp_path)
    write_checkpoint(tmp_path, 10)
    assert not look(back(tmp_path)).ended
    os.utime(tmp_path / "trainer_state.json")
    assert look(tmp_path).ended
