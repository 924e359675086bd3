"""A greedy soup: the best checkpoint, and every other that does no harm; or the best run, and every other.

Wortsman et al. 2022, arXiv 2203.05482.
"""

from collections.abc import Collection, Sequence

from tasks.search.candidate import Candidate, plain_average, weighted
from tasks.search.trials import Proposals


def greedy(parts: Sequence[Sequence[float]]) -> Proposals:
    """Propose each part, then averages of the best ones; two candidates for each part less one.

    A part is a checkpoint, or the checkpoints of a run: their weights in its own average, adding up to 1.
    """
    answers = yield [_soup({place}, parts) for place in range(len(parts))]
    alone = [losses.mean for losses in answers]
    best_first = sorted(range(len(parts)), key=lambda place: (alone[place], -place))
    taken, least = {best_first[0]}, alone[best_first[0]]
    for place in best_first[1:]:
        (losses,) = yield [_soup(taken | {place}, parts)]
        if losses.mean <= least:
            taken, least = taken | {place}, losses.mean
    return None


def _soup(taken: Collection[int], parts: Sequence[Sequence[float]]) -> Candidate:
    if len(taken) == len(parts):
        return plain_average(sum(map(len, parts)))
    return weighted([weight * (i in taken) for i, part in enumerate(parts) for weight in part])
