"""Trying candidates, one after the other, until the budget is spent."""

from collections.abc import Callable, Generator
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

    @property
    def mean(self) -> float:
        """Return the mean that candidates are ranked by."""
        return self.estimate(self.items).mean

    def estimate(self, values: NDArray[np.float64]) -> Estimate:
        """Return the mean of a value for each of the items, with its standard error."""
        return estimate_mean(values, self.clusters, self.weights)


Proposals: TypeAlias = Generator[Candidate, Losses, str | None]
"""Proposes candidates and is sent what each loses; returns a sentence on what it found, if there is one."""


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
        """Return the candidate that loses least; of equal ones the first."""
        return min(self.losses, key=lambda candidate: self.losses[candidate].mean)

    @property
    def gain(self) -> Estimate:
        """Return what the best one gains over the first, item by item, with its standard error."""
        first = self.losses[self.first]
        return first.estimate(first.items - self.losses[self.best].items)

    @property
    def accepted(self) -> Candidate:
        """Return the best one if it beats the first by more than a standard error, else the first."""
        return self.best if self.gain.mean > self.gain.error else self.first


def run_trials(
    proposals: Proposals,
    first: Candidate,
    budget: int,
    measure: Callable[[Candidate], Losses],
    enough: Callable[[], bool] = lambda: False,
) -> Tried:
    """Measure the first candidate, which the others have to beat, and what is proposed, each once.

    `enough` tells whether no further one should begin.
    """
    losses = {first: measure(first)}
    try:
        candidate = next(proposals)
        for _ in range(ANSWERS_EACH * budget):
            if candidate not in losses:
                if len(losses) == budget or enough():
                    break
                losses[candidate] = measure(candidate)
            candidate = proposals.send(losses[candidate])
    except StopIteration as end:
        return Tried(losses, end.value)
    proposals.close()
    return Tried(losses, None)
