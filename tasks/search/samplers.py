"""The samplers, by their names in search.sampler."""

from collections.abc import Sequence
from pathlib import Path

from tasks.parameters.search import SearchParams
from tasks.search.drawn import IsRead, draw_candidates
from tasks.search.greedy import greedy
from tasks.search.surface import surface
from tasks.search.trials import Proposals


def proposals_of(
    params: SearchParams, is_read: IsRead, parts: Sequence[Sequence[float]], log: Path
) -> Proposals:
    """Return what a sampler proposes; see `greedy` for parts, `draw_candidates` for the others."""
    count = sum(map(len, parts))
    match params.sampler:
        case "surface":
            return surface(count, params.budget)
        case "greedy":
            return greedy(parts)
        case _:
            return draw_candidates(params, is_read, count, log)
