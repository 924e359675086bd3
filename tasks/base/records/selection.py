"""Records of a selection: the checkpoints to merge, and what the learning rate says of them."""

from typing import Literal

from pydantic import Field

from tasks.base.records.record import Record, is_empty
from tasks.base.records.training_run import Checkpoint, LeftOut


class FarCheckpoint(Record):
    """A checkpoint that lies far from the others, as one that has diverged does."""

    step: int
    times: float | None
    """Its median distance to the others, in units of the median of these; None where those are equal."""
    tensor: str | None = None
    """The tensor in which it does; None: the whole model."""

    @property
    def sentence(self) -> str:
        """How far it lies from the others, and where."""
        where = f" in {self.tensor}" if self.tensor else ""
        if self.times is None:
            return f"lies apart from the others, which are equal{where}"
        return f"lies {self.times:.3g} times as far from the others as is usual among them{where}"


class RunPlan(Record):
    """What kind of run it is by its learning rate, and what a merge can be expected to do."""

    schedule: Literal["constant", "decaying", "decayed", "unknown"]
    peak: float
    last_rate: float
    since: int
    """The first step from which the rate is near its peak."""
    until: int
    """The last step at which it is."""
    window: tuple[int, ...]
    """Steps of the checkpoints that it would merge; the last alone where no merge is expected to help."""
    weights: tuple[float, ...]
    """What would be left of a decay, as weights of these."""
    before_decay: tuple[int, ...]
    """Steps of checkpoints before a decay that could be merged instead."""
    far: tuple[FarCheckpoint, ...] = ()
    """Checkpoints that the window leaves out."""
    rates: tuple[tuple[int, float], ...] = ()
    sentence: str = ""


class Selection(Record):
    """The checkpoints to merge, oldest first."""

    run: str
    rule: str
    chosen: tuple[Checkpoint, ...]
    left_out: tuple[LeftOut, ...]
    best: Checkpoint | None
    """Best single checkpoint of the whole run by the selection metric; None when it was never logged."""
    last: Checkpoint
    metric: str
    plan: RunPlan | None = None
    """What the run's learning rate says of a merge; None of several runs, and in records of 0.1.0."""
    plans: dict[str, RunPlan] = Field(default_factory=dict, exclude_if=is_empty)
    """Of several runs: run → what its learning rate says."""

    @property
    def planned(self) -> tuple[str, ...]:
        """What the plan says, a sentence for each run."""
        if self.plan:
            return (self.plan.sentence,)
        return tuple(f"{run}: {plan.sentence}" for run, plan in self.plans.items())
