"""Records of a verdict: the rule that decided, and the evidence."""

from typing import Literal

from tasks.base.records.record import Interval, Record

Decision = Literal["PROMOTE", "KEEP", "INCONCLUSIVE"]
GateRule = Literal[
    "equal",
    "gain_ruled_out",
    "too_few_items",
    "too_few_clusters",
    "constant_gain",
    "gain_open",
    "may_be_chance",
    "others_worsen",
    "guard_open",
    "harm_open",
    "better",
    "spent",
    "not_confirmed",
    "harm_on_vault",
    "not_chosen",
]
"""Recorded with every verdict: a name may be added, but not taken away."""


class Worsening(Record):
    """A metric that the merge worsens by more than its margin."""

    metric: str
    loss: float
    margin: float
    against: str | None = None
    """The other model's role; None in records of 0.1.0: that of the verdict."""


class Standing(Record):
    """How the merge stands against one opponent on the deciding metric."""

    against: str
    """The opponent's role; gain, interval, wins, losses and p are in the differences."""
    rule: GateRule
    """What holds against this opponent alone; `better` where the gain is shown."""


class GuardedMetric(Record):
    """A metric that must not suffer, against one model."""

    metric: str
    margin: float
    gain: Interval
    """Each end is a bound at 5 % one-sided."""
    worse: bool
    """Shown to worsen, and by more than its margin on average."""
    finds: float
    """The smallest loss that these items find four times in five."""
    strict: bool
    """Named in `evaluate.guard_strictly`: PROMOTE needs it held."""

    @property
    def held(self) -> bool:
        """Tell whether it is shown to lose no more than its margin."""
        return self.gain.low >= -self.margin


class Guard(Record):
    """All metrics but the deciding one, against one model."""

    against: str
    metrics: tuple[GuardedMetric, ...]
    pooled: Interval | None
    """Mean gain over the metrics, each in units of its margin, 5 % one-sided; None without margins."""

    @property
    def held(self) -> bool:
        """Tell whether the metrics together are shown to lose no more than their margins."""
        return self.pooled is None or self.pooled.low > -1


class Confirmation(Record):
    """What a vault said of a merge that the test items would have promoted."""

    against: str
    """The role of the model that it would replace."""
    items: int
    gain: Interval
    """Each end is a bound at `level` one-sided."""
    level: float
    look: int
    """The how many-th look at this vault it was."""
    excess: float
    """The gain on the test items less that on the vault's: what the test items promised too much."""
    worsened: tuple[Worsening, ...] = ()

    @property
    def holds(self) -> bool:
        """Tell whether the gain is confirmed, and nothing is shown to suffer."""
        return self.gain.low > 0 and not self.worsened


class Reason(Record):
    """Which of the gate's rules decided, and by what bounds; the gain itself is in the differences."""

    rule: GateRule
    min_gain: float
    worsened: tuple[Worsening, ...]


class Verdict(Record):
    """Whether the merge should replace what is in use, and on what evidence."""

    decision: Decision
    sentence: str = ""
    """The fields in words: tasks/verdict/sentence.py."""
    against: str
    """The role of the opponent that decides: the one that blocks, else the strongest."""
    primary: str
    items_needed: int | None = None
    """Written by 0.1.0 only."""
    finds: float | None = None
    """The smallest gain over that opponent that these items find four times in five; None where unknown."""
    level: float = 0.025
    """One-sided, of every opponent's interval and exact test."""
    opponents: tuple[Standing, ...] = ()
    """Every model that the merge must beat, the champion first."""
    guards: tuple[Guard, ...] = ()
    """What the other metrics show, against each model that they are held to."""
    look: int | None = None
    """The how many-th look at these test items it is; None where none was counted."""
    chance: float | None = None
    """Up to which the chance of a false promotion in all these looks has grown, were nothing better."""
    trained_on: int = 0
    """Test items that occur in the run's training data, as far as its files are named."""
    confirmation: Confirmation | None = None
    """What the vault said; None where it was not asked."""
    reason: Reason | None = None
    """None where 0.1.0 recorded the verdict: it kept the sentence alone."""
    beside_average: Literal["no_better", "not_shown_better"] | None = None
    """Set where a gain over the opponent is no gain, or not shown to be one, over the plain average."""
    not_measured: tuple[str, ...] = ()
    """Labels of models that took part when it was recorded and have no results on this machine."""
    recorded: Decision | None = None
    """The recorded decision, which counts for those."""
