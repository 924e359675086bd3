"""Trying candidates, some at a time, until the budget is spent."""

from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tasks.search.candidate import Candidate
from tasks.verdict.intervals import Estimate, estimate_mean

ANSWERS_EACH = 20
"""Proposals for each trial: who only proposes what is known already has nothing more to say."""


class Losses(NamedTuple):
    """What a candidate's model loses on each item; lower is better."""

    items: NDArray[np.float64]
    clusters: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    first: "Losses | None" = None
    """On the items that were asked first; None where all were asked at once."""
    dropped: bool = False
    """Whether it lost so much on the items that were asked first that these are all it was asked."""

    @property
    def mean(self) -> float:
        """Return the mean that candidates are ranked by."""
        return self.estimate(self.items).mean

    def estimate(self, values: NDArray[np.float64]) -> Estimate:
        """Return the mean of a value for each of the items, with its standard error."""
        return estimate_mean(values, self.clusters, self.weights)

    def gain_over(self, other: "Losses") -> Estimate:
        """Return what it gains over one that was asked all items, on those that it was asked."""
        there = other.first if self.dropped and other.first else other
        return self.estimate(there.items - self.items)

    def falls_behind(self, other: "Losses") -> bool:
        """Return whether it loses to another, on the same items, by more than a standard error."""
        gain = self.estimate(other.items - self.items)
        return -gain.mean > gain.error > 0


class Measured(NamedTuple):
    """A candidate's losses, and the metric they are of."""

    metric: str
    higher_is_better: bool
    losses: Losses


Proposals: TypeAlias = Generator[Sequence[Candidate], list[Losses], str | None]
"""Proposes candidates, as many as it can without an answer, and is sent what each of them loses.

One that was dropped is sent as if the items that it was not asked had gone as those that it was.
Returns a sentence on what it found, if there is one.
"""

MeasureAll: TypeAlias = Callable[[Sequence[Candidate], Losses | None], list[Losses]]
"""Measures candidates, each of which may be dropped if it falls behind the one that is best so far."""


class Tried(NamedTuple):
    """All candidates that were tried, in their order, the one that the others have to beat first."""

    losses: dict[Candidate, Losses]
    said: str | None

    @property
    def first(self) -> Candidate:
        """Return the one that the others have to beat."""
        return next(iter(self.losses))

    @property
    def best(self) -> Candidate:
        """Return the candidate that loses least on all items; of equal ones the first."""
        whole = [candidate for candidate, losses in self.losses.items() if not losses.dropped]
        return min(whole, key=lambda candidate: self.losses[candidate].mean)

    @property
    def gain(self) -> Estimate:
        """Return what the best one gains over the first, item by item, with its standard error."""
        return self.losses[self.best].gain_over(self.losses[self.first])

    def expected(self, candidate: Candidate) -> Losses:
        """Return a candidate's losses; of one that was dropped, moved by how much harder all items are."""
        own, first = self.losses[candidate], self.losses[self.first]
        harder = first.mean - own.gain_over(first).mean - own.mean if own.dropped else 0.0
        return own._replace(items=own.items + harder)

    @property
    def accepted(self) -> Candidate:
        """Return the best one if it beats the first by more than a standard error, else the first."""
        return self.best if self.gain.mean > self.gain.error else self.first


def run_trials(
    proposals: Proposals,
    first: Candidate,
    budget: int,
    measure: MeasureAll,
    at_once: int = 1,
    enough: Callable[[], bool] = lambda: False,
) -> Tried:
    """Measure the first candidate, which the others have to beat, and what is proposed, each once.

    `at_once` are measured at a time; `enough` tells whether no further ones should begin.
    """
    tried = Tried({first: measure([first], None)[0]}, None)
    try:
        proposed = next(proposals)
        for _ in range(ANSWERS_EACH * budget):
            new = [candidate for candidate in dict.fromkeys(proposed) if candidate not in tried.losses]
            new = new[: budget - len(tried.losses)]
            for some in (new[start : start + at_once] for start in range(0, len(new), at_once)):
                if enough():
                    return tried
                best = tried.losses[tried.best]
                tried.losses.update(zip(some, measure(some, best), strict=True))
            if any(candidate not in tried.losses for candidate in proposed):
                break
            proposed = proposals.send([tried.expected(candidate) for candidate in proposed])
    except StopIteration as end:
        return tried._replace(said=end.value)
    proposals.close()
    return tried
