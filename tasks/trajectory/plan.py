"""What kind of run it is, what a merge of it can be expected to gain, and what to do next time."""

from collections.abc import Sequence
from pathlib import Path

from tasks.base.errors import BadInput
from tasks.base.records import RunPlan
from tasks.checkpoints.run_directory import numbered_checkpoints
from tasks.parameters.selection import SelectParams
from tasks.trajectory.decay_weights import decay_weights
from tasks.trajectory.learning_rate import Rate, RateSchedule, logged_rates, schedule_of
from tasks.trajectory.trainer_state import read_state

LONG_ENOUGH = 2
"""Checkpoints before a decay that are worth merging instead."""


def plan_run(steps: Sequence[int], rates: Sequence[Rate], params: SelectParams) -> RunPlan:
    """Plan a merge of a run with checkpoints at these steps, from its learning rate alone.

    Averaging does what a decay of the rate does: what has decayed has had it already.
    """
    schedule = schedule_of(rates)
    ordered = sorted(steps)
    if schedule.kind == "decayed":
        window = ordered[-1:]
        before = tuple([step for step in ordered if step <= schedule.until][-params.k :])
    else:
        window = [step for step in ordered if step >= schedule.since][-params.k :] or ordered[-params.k :]
        before = ()
    plan = RunPlan(
        schedule=schedule.kind,
        peak=schedule.peak,
        last_rate=schedule.last,
        since=schedule.since,
        until=schedule.until,
        window=tuple(window),
        weights=tuple(round(weight, 4) for weight in decay_weights(window, rates)),
        before_decay=before if len(before) >= LONG_ENOUGH else (),
        rates=tuple((rate.step, rate.value) for rate in rates),
    )
    return plan.model_copy(update={"sentence": _sentence(plan, schedule)})


def plan_directory(directory: Path, params: SelectParams) -> RunPlan:
    """Plan a merge of the run in a Trainer's output directory.

    Raises BadInput where that holds no checkpoint.
    """
    try:
        there = numbered_checkpoints(directory)
    except OSError as error:
        raise BadInput(
            directory, f"cannot be read ({error.strerror})", "name a Trainer's output_dir"
        ) from None
    if not there:
        raise BadInput(directory, "holds no checkpoint-N directory", "name a Trainer's output_dir")
    rates = logged_rates(read_state(there[-1][1]) or {})
    return plan_run([step for step, _ in there], rates, params)


def _sentence(plan: RunPlan, schedule: RateSchedule) -> str:
    if len(plan.window) < 2 and plan.schedule != "decayed":
        return "There is one checkpoint: nothing to merge."
    first, last, count = plan.window[0], plan.window[-1], len(plan.window)
    match plan.schedule:
        case "constant":
            return (
                f"The learning rate is constant since step {schedule.since}: averaging should help; "
                f"window {first} to {last}, {count} checkpoints."
            )
        case "decaying":
            weights = ", ".join(f"{weight:.2g}" for weight in plan.weights)
            return (
                f"The learning rate is down to {schedule.last / schedule.peak:.0%} of its peak, from step "
                f"{schedule.until} on: part of what a merge does is done; weights {weights} of steps "
                f"{first} to {last} would do the rest."
            )
        case "decayed":
            steps = list(plan.before_decay)
            then = f", or merge before the decay (select.rule: steps, select.steps: {steps})" if steps else ""
            return (
                f"The learning rate has decayed, from step {schedule.until} on: a merge is not expected to "
                f"beat the last checkpoint; keep a constant rate next time{then}."
            )
        case "unknown":
            return (
                "The log holds no learning rates, so whether a merge should help is not known; window "
                f"{first} to {last}, {count} checkpoints."
            )
