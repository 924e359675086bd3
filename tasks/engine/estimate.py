"""How long a merge that decomposes matrices takes, and how much of that is left."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from tasks.engine.cut import as_stack
from tasks.engine.devices import threads_for
from tasks.engine.plan import Plan
from tasks.merging.solving import ProblemKey

NOMINAL_S = 0.25e-9
"""Seconds for rows × columns × min(rows, columns) of one checkpoint on one core: what LoRE takes on most
matrices that were measured."""
CORE_SIDE = 12_000
"""What stands for the smaller side of a core, k × k: of these much is active, and calls take time, so that
LoRE took 2 to 4 µs · N · k² for k from 48 to 768."""
BEGINS_S = 1.5
"""Seconds before anything is solved, most of them for loading torch."""
MERGED_S = 10.0
"""Seconds of merging that say as much as what was foretold."""


class TimeEstimate(NamedTuple):
    """What a merge takes."""

    seconds: Mapping[str, float]
    """By tensor, on one thread."""
    threads: int
    sampled: int = 0
    """Matrices that were solved for this."""
    at_least: bool = False
    """Whether some of them did not end in time."""
    solved: Mapping[ProblemKey, Any] = {}
    """What the merge need not solve again."""

    @property
    def total(self) -> float:
        """Seconds of the whole merge, once it has begun."""
        return sum(self.seconds.values()) / self.threads

    def __str__(self) -> str:
        return f"{'at least' if self.at_least else 'about'} {duration(BEGINS_S + self.total)}"

    def left(self, at_first: Iterable[str], now: Iterable[str], elapsed: float) -> str:
        """Say how long the tensors that lack `now` still take, of those that lacked `elapsed` seconds ago."""
        bound = "at least" if self.at_least and elapsed < self._weight else "about"
        return f"{bound} {duration(self.remaining(at_first, now, elapsed))} left"

    def remaining(self, at_first: Iterable[str], now: Iterable[str], elapsed: float) -> float:
        """Return those seconds, at a pace between the one foretold and the one seen since."""
        before, rest = self._together(at_first), self._together(now)
        return rest * (self._weight + elapsed) / (self._weight + before - rest)

    @property
    def _weight(self) -> float:
        """Seconds that the estimate counts for: more than a longest tensor, which may be on the way."""
        return MERGED_S + max(self.seconds.values())

    def _together(self, names: Iterable[str]) -> float:
        return sum(self.seconds.get(name, 0.0) for name in names) / self.threads


def nominal(plan: Plan, devices: Sequence[str]) -> TimeEstimate | None:
    """Estimate by shapes and ranks alone; None where reading, or measuring on text, takes the time."""
    if not plan.method.whole or plan.method.measures:
        return None
    works = {name: work_on(plan, name) for name, shape in plan.shapes.items() if len(shape) > 1}
    seconds = {name: NOMINAL_S * len(plan.inputs) * work for name, work in works.items() if work}
    if not seconds:
        return None
    return TimeEstimate(seconds, threads_for(devices, plan.bytes_held))


def work_on(plan: Plan, name: str) -> float:
    """Return what the operations on a tensor are proportional to, for each checkpoint."""
    if name not in plan.spanned:
        return work_of(plan.shapes[name])
    _, rows, columns = as_stack(plan.shapes[name])
    k = sum(plan.ranks(name))
    return k * k * (rows + columns) / len(plan.inputs) + CORE_SIDE * min(k, rows) * min(k, columns)


def work_of(shape: tuple[int, ...]) -> float:
    """Return what a decomposition's operations are proportional to."""
    stack, rows, columns = as_stack(shape)
    return float(stack * rows * columns * min(rows, columns))


def duration(seconds: float) -> str:
    """Return a time as people say it."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"
