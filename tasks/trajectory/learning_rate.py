"""The learning rate along a run, as the Trainer logged it: what a merge can still do follows from it."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

ScheduleKind = Literal["constant", "decaying", "decayed", "unknown"]
STAYS, GONE = 0.9, 0.1
"""Share of the peak down to which a rate counts as constant, and up to which as decayed."""
MOST_RATES = 1000
"""Rates of a run that are kept, evenly spaced: schedules are smooth."""


class Rate(NamedTuple):
    """The learning rate from a step on."""

    step: int
    value: float


class RateSchedule(NamedTuple):
    """What became of the rate by the end."""

    kind: ScheduleKind
    peak: float = 0.0
    last: float = 0.0
    since: int = 0
    """The first step of the last stretch near the peak."""
    until: int = 0
    """The last step of it."""


def logged_rates(state: Mapping[str, Any]) -> list[Rate]:
    """Return the finite learning rates that a trainer_state.json logs, in step order, the later of two."""
    history = state.get("log_history")
    found: dict[int, float] = {}
    for entry in history if isinstance(history, list) else ():
        if isinstance(entry, Mapping):
            step, value = entry.get("step"), entry.get("learning_rate")
            if isinstance(step, int) and isinstance(value, int | float) and 0 <= value <= sys.float_info.max:
                found[step] = float(value)
    rates = [Rate(step, found[step]) for step in sorted(found)]
    if len(rates) <= MOST_RATES:
        return rates
    places = [round(i * (len(rates) - 1) / (MOST_RATES - 1)) for i in range(MOST_RATES)]
    return [rates[place] for place in places]


def schedule_of(rates: Sequence[Rate]) -> RateSchedule:
    """Tell whether the rate stayed near its peak to the end, decays, or has decayed."""
    peak = max((rate.value for rate in rates), default=0.0)
    if len(rates) < 2 or peak == 0:
        return RateSchedule("unknown")
    near = [i for i, rate in enumerate(rates) if rate.value >= STAYS * peak]
    # the last stretch: training that was resumed, or restarted its schedule, was near its peak before
    begin = next(i for i in reversed(near) if i - 1 not in near)
    last = rates[-1].value
    kind: ScheduleKind = (
        "constant" if last >= STAYS * peak else "decayed" if last <= GONE * peak else "decaying"
    )
    return RateSchedule(kind, peak, last, rates[begin].step, rates[near[-1]].step)
