"""What kind of run it is, what a merge of it can be expected to gain, and what to do next time."""

from collections.abc import Sequence

from tasks.base.records.selection import FarCheckpoint, RunPlan
from tasks.merging.step_weights import planned_weights
from tasks.parameters.selection import SelectParams
from tasks.trajectory.learning_rate import Rate, RateSchedule, schedule_of

LONG_ENOUGH = 2
"""Checkpoints before a decay that are worth merging instead."""


def plan_run(
    steps: Sequence[int], rates: Sequence[Rate], params: SelectParams, far: Sequence[FarCheckpoint] = ()
) -> RunPlan:
    """Plan a merge of a run with checkpoints at these steps, from its learning rate, without those far off.

    Averaging does what a decay of the rate does: what has decayed has had it already.
    """
    schedule = schedule_of(rates)
    ordered = sorted(set(steps) - {own.step for own in far})
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
        weights=tuple(round(weight, 4) for weight in planned_weights(window, rates)),
        before_decay=before if len(before) >= LONG_ENOUGH else (),
        far=tuple(far),
        rates=tuple((rate.step, rate.value) for rate in rates),
    )
    told = [
        _sentence(plan, schedule),
        *(f"Step {own.step} {own.sentence}: it is not in the window." for own in far),
    ]
    return plan.model_copy(update={"sentence": " ".join(told)})


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
