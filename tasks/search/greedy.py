"""A greedy soup: the best checkpoint, and every other that does no harm.

Wortsman et al. 2022, arXiv 2203.05482.
"""

from collections.abc import Collection

from tasks.search.candidate import Candidate, weighted
from tasks.search.trials import Proposals


def greedy(count: int) -> Proposals:
    """Propose each checkpoint, then averages of the best ones; 2·count − 1 candidates."""
    alone = []
    for place in range(count):
        losses = yield _soup({place}, count)
        alone.append(losses.mean)
    best_first = sorted(range(count), key=lambda place: (alone[place], -place))
    taken, least = {best_first[0]}, alone[best_first[0]]
    for place in best_first[1:]:
        losses = yield _soup(taken | {place}, count)
        if losses.mean <= least:
            taken, least = taken | {place}, losses.mean
    return None


def _soup(taken: Collection[int], count: int) -> Candidate:
    return weighted([float(place in taken) for place in range(count)])
