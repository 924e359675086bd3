"""Reading trainer_state.json: logged metrics, steps done and planned, and whether the run has ended."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.base.errors import BadInput
from tasks.base.json_files import read_json
from tasks.checkpoints.layout import STATE, inside


def read_state(directory: Path) -> dict[str, Any] | None:
    """Return a directory's trainer_state.json; None while there is none that can be read."""
    try:
        return read_json(inside(directory, directory / STATE))
    except BadInput:
        return None


def logged_metrics(directory: Path, step: int) -> dict[str, float]:
    """Return every finite number that the Trainer logged at `step`; empty without a readable state.

    NaN, Infinity and integers beyond float64 tell nothing that checkpoints could be compared by.
    """
    try:
        history = (read_state(directory) or {})["log_history"]
        entries = [entry for entry in history if entry.get("step") == step]
    except (KeyError, TypeError, AttributeError):
        return {}
    return {
        key: float(value)
        for entry in entries
        for key, value in sorted(entry.items())
        if key != "step" and isinstance(value, int | float) and abs(value) <= sys.float_info.max
    }


def says_ended(state: Mapping[str, Any]) -> bool:
    """Tell whether a state is that of the last step, or of one at which training was stopped.

    A stop counts only with an ordinary save. The checkpoint that enable_jit_checkpoint writes at SIGTERM says
    should_training_stop too, but not should_save: that run was preempted and is to be resumed.
    """
    step, steps = _count(state, "global_step"), _count(state, "max_steps")
    if 0 < steps <= step:
        return True
    control = _entry(_entry(_entry(state, "stateful_callbacks"), "TrainerControl"), "args")
    return control.get("should_training_stop") is True and control.get("should_save", True) is True


def step_of_steps(state: Mapping[str, Any]) -> str:
    """Return a state's position in training in words: step 3 of 7."""
    step, steps = _count(state, "global_step"), _count(state, "max_steps")
    return f"step {step}" + (f" of {steps}" if steps else "")


def _entry(tree: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = tree.get(key)
    return found if isinstance(found, Mapping) else {}


def _count(state: Mapping[str, Any], key: str) -> int:
    value = state.get(key)
    return value if isinstance(value, int) else 0
