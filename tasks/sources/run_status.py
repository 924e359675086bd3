"""Whether a training run has ended: what its saved state says, and how long nothing has changed."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Look(NamedTuple):
    """What a source looks like now."""

    digest: str
    """Changes whenever what fetch would take changes."""
    ended: bool
    reason: str
    """One phrase for the log."""


class Standing(NamedTuple):
    """Whether a run has ended, and why."""

    ended: bool
    reason: str


def standing(said: bool, place: str, age: float, quiet_for: float) -> Standing:
    """Judge a run at `place` in its training: its state `said` that it has ended, or nothing has changed.

    `age` is that of its newest change, in seconds.
    """
    if said:
        return Standing(True, f"training state says so ({place})")
    if age >= quiet_for:
        return Standing(True, f"unchanged for {duration(age)} ({place})")
    return Standing(False, f"still training: {place}, last change {duration(age)} ago")


def says_ended(state: Mapping[str, Any]) -> bool:
    """Tell whether a checkpoint's state is that of the last step, or of one at which training was stopped.

    A stop counts only with an ordinary save. The checkpoint that enable_jit_checkpoint writes at SIGTERM says
    should_training_stop too, but not should_save: that run was preempted and is to be resumed.
    """
    step, steps = _count(state, "global_step"), _count(state, "max_steps")
    if 0 < steps <= step:
        return True
    control = _entry(_entry(_entry(state, "stateful_callbacks"), "TrainerControl"), "args")
    return control.get("should_training_stop") is True and control.get("should_save", True) is True


def step_of_steps(state: Mapping[str, Any]) -> str:
    """Name the place in its training that a trainer_state.json is of."""
    step, steps = _count(state, "global_step"), _count(state, "max_steps")
    return f"step {step}" + (f" of {steps}" if steps else "")


def duration(seconds: float) -> str:
    """Return a rough length of time to read: 12 s, 31 min, 5 h."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def _entry(tree: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = tree.get(key)
    return found if isinstance(found, Mapping) else {}


def _count(state: Mapping[str, Any], key: str) -> int:
    value = state.get(key)
    return value if isinstance(value, int) else 0
