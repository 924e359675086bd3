"""What a saved state says of its run; what cannot be read says nothing."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tasks.trajectory.trainer_state import logged_metrics, read_state, says_ended, step_of_steps


def control(**args: bool) -> dict[str, Any]:
    return {"global_step": 4, "max_steps": 7, "stateful_callbacks": {"TrainerControl": {"args": args}}}


@pytest.mark.parametrize(
    ("state", "ended"),
    [
        ({"global_step": 7, "max_steps": 7}, True),
        ({"global_step": 8, "max_steps": 7}, True),
        ({"global_step": 6, "max_steps": 7}, False),
        ({"global_step": 6, "max_steps": 0}, False),
        ({"global_step": "7", "max_steps": 7}, False),
        (control(should_training_stop=True), True),
        (control(should_training_stop=True, should_save=True), True),
        (control(should_training_stop=True, should_save=False), False),  # preempted, to be resumed
        (control(should_training_stop=False), False),
        ({"stateful_callbacks": [1]}, False),
        ({}, False),
    ],
)
def test_a_run_has_ended_at_its_last_step_or_where_it_was_stopped(
    state: Mapping[str, Any], ended: bool
) -> None:
    assert says_ended(state) == ended


def test_the_place_in_a_training_is_named() -> None:
    assert step_of_steps({"global_step": 3, "max_steps": 7}) == "step 3 of 7"
    assert step_of_steps({"global_step": 3, "max_steps": None}) == "step 3"
    assert step_of_steps({}) == "step 0"


def test_the_numbers_that_were_logged_at_a_step_are_its_metrics(tmp_path: Path) -> None:
    history = [
        {"step": 10, "loss": 2.0},
        {"step": 20, "loss": 1.0, "note": "x"},
        {"step": 20, "eval_loss": 0.5, "eval_acc": 1},
    ]
    (tmp_path / "trainer_state.json").write_text(json.dumps({"log_history": history}))
    assert logged_metrics(tmp_path, 20) == {"loss": 1.0, "eval_loss": 0.5, "eval_acc": 1.0}
    assert logged_metrics(tmp_path, 30) == {}


@pytest.mark.parametrize(
    "text", [None, "", "{", "[]", "null", '{"log_history": 1}', '{"log_history": ["x"]}']
)
def test_a_state_that_cannot_be_read_says_nothing(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "trainer_state.json").write_text(text)
    assert logged_metrics(tmp_path, 10) == {}
    assert not says_ended(read_state(tmp_path) or {})


def test_what_is_no_number_is_no_metric(tmp_path: Path) -> None:
    """The checkpoint keeps its place; the metric is unknown there."""
    entry = (
        f'{{"step": 3, "eval_loss": NaN, "grad_norm": Infinity, "big": {"9" * 400}, "lr": 0.5, "name": "x"}}'
    )
    (tmp_path / "trainer_state.json").write_text(f'{{"log_history": [{entry}]}}')
    assert logged_metrics(tmp_path, 3) == {"lr": 0.5}


def test_a_state_elsewhere_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text('{"global_step": 3}')
    run = tmp_path / "run"
    run.mkdir()
    (run / "trainer_state.json").symlink_to(tmp_path / "secret.json")
    assert read_state(run) is None
    (run / "trainer_state.json").unlink()
    os.mkfifo(run / "trainer_state.json")
    assert read_state(run) is None
