"""Sparsifying task vectors: which elements of δ_i = θ_i − θ_0 are kept."""

import math
from collections.abc import Callable, Generator, Sequence
from itertools import product

from tasks.base.errors import BadInput
from tasks.merging.arrays import Array
from tasks.merging.block import Block
from tasks.merging.drop import drop
from tasks.merging.magnitude import Group, TaskVectors, leading
from tasks.merging.program import Measure, Results, Settings
from tasks.parameters.merge import BreadcrumbsParams, MergeParams, value_for
from tasks.parameters.varying import varies

Kept = Generator[Measure, Results, Callable[[Block], Sequence[Array]]]


def weights_themselves(settings: Settings) -> Kept:
    """θ_i: for methods without an anchor."""
    return lambda block: block.thetas
    yield  # makes this a generator


def as_they_are(settings: Settings) -> Kept:
    """δ_i unchanged."""
    return lambda block: block.deltas
    yield  # makes this a generator


def trimmed(settings: Settings) -> Kept:
    """Largest magnitudes, a share of `ties.density` (Yadav et al. 2023, arXiv 2306.01708)."""
    return (yield from _trim(settings, lambda block: block.deltas))


def dropped(settings: Settings) -> Kept:
    """Each element with probability 1 − p, divided by 1 − p (Yu et al. 2023, arXiv 2311.03099)."""
    return lambda block: [
        drop(delta, settings.at(block.tensor).dare, block, i) for i, delta in enumerate(block.deltas)
    ]
    yield  # makes this a generator


def dropped_and_trimmed(settings: Settings) -> Kept:
    """DARE, then the trim of TIES."""
    return (yield from _trim(settings, (yield from dropped(settings))))


def banded(settings: Settings) -> Kept:
    """Between outliers and small changes (Davari and Belilovsky 2023, arXiv 2312.06795)."""
    groups = [
        Group(
            [tensor],
            [_band(settings.at(tensor).breadcrumbs, math.prod(shape), i) for i in range(settings.count)],
        )
        for tensor, shape in settings.shapes.items()
    ]
    leaders = yield from leading(groups, lambda block: block.deltas)

    def keep(block: Block, i: int, delta: Array) -> Array:
        outliers, upper = leaders(block, i, delta)
        return delta * (upper ^ outliers)

    return lambda block: [keep(block, i, delta) for i, delta in enumerate(block.deltas)]


def check_band(settings: Settings) -> None:
    """Raise BadInput where the shares that breadcrumbs drops and keeps exceed 1."""
    for tensor, i in product(settings.shapes, range(settings.count)):
        crumbs = settings.at(tensor).breadcrumbs
        density, gamma = value_for(crumbs.density, i), value_for(crumbs.gamma, i)
        if density + gamma > 1:
            raise BadInput(
                "merge.breadcrumbs",
                f"density {density:g} and gamma {gamma:g} add up to more than 1 for {tensor}",
                "lower one of them",
            )


def check_trimmed(settings: Settings) -> None:
    """Raise BadInput where the model is trimmed as one, and yet tensor by tensor to other densities."""
    density, over_model = settings.params.ties.density, settings.params.ties.scope == "model"
    each = density if isinstance(density, list | tuple) else [density]
    if over_model and any(map(varies, each)):
        raise BadInput(
            "merge.ties.density",
            "varies over the model, and scope model trims all of it together",
            "give one number for each checkpoint, or set merge.ties.scope to tensor",
        )


def _trim(settings: Settings, deltas: TaskVectors) -> Kept:
    groups = _trim_groups(settings)
    # density 1 keeps everything: no measurement needed
    if all(ranks == [_elements(settings, group.tensors)] for group in groups for ranks in group.ranks):
        return deltas
    leaders = yield from leading(groups, deltas)
    return lambda block: [delta * leaders(block, i, delta)[0] for i, delta in enumerate(deltas(block))]


def _trim_groups(settings: Settings) -> list[Group]:
    if settings.params.ties.scope == "model":
        everything = list(settings.shapes)
        return [Group(everything, _kept(settings, settings.params, everything))]
    return [Group([tensor], _kept(settings, settings.at(tensor), [tensor])) for tensor in settings.shapes]


def _kept(settings: Settings, params: MergeParams, tensors: Sequence[str]) -> list[list[int]]:
    elements = _elements(settings, tensors)
    return [[round(value_for(params.ties.density, i) * elements)] for i in range(settings.count)]


def _elements(settings: Settings, tensors: Sequence[str]) -> int:
    return sum(math.prod(settings.shapes[tensor]) for tensor in tensors)


def _band(breadcrumbs: BreadcrumbsParams, elements: int, checkpoint: int) -> list[int]:
    """Return how many elements are outliers, and how many are outliers or kept."""
    outliers = round(value_for(breadcrumbs.gamma, checkpoint) * elements)
    return [outliers, min(outliers + round(value_for(breadcrumbs.density, checkpoint) * elements), elements)]
