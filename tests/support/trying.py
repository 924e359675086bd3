"""Candidates that are measured without a model."""

from collections.abc import Callable, Sequence

from tasks.search.candidate import Candidate
from tasks.search.trials import Losses, MeasureAll


def whole(measure: Callable[[Candidate], Losses]) -> MeasureAll:
    """Measure each candidate on all items at once."""
    return lambda candidates, best: [measure(candidate) for candidate in candidates]


def raced(measure: Callable[[Candidate], Losses], first: int) -> MeasureAll:
    """Measure each candidate on its first items, and on the rest unless it falls behind."""

    def all_of(candidates: Sequence[Candidate], best: Losses | None) -> list[Losses]:
        return [one_of(measure(candidate), best) for candidate in candidates]

    def one_of(own: Losses, best: Losses | None) -> Losses:
        part = Losses(own.items[:first], own.clusters[:first], own.weights[:first])
        if best and best.first and part.falls_behind(best.first):
            return part._replace(dropped=True)
        return own._replace(first=part)

    return all_of
