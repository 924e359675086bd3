"""Fisher merging: every element weighed by how much the likelihood of text depends on it."""

from tasks.base.errors import BadInput
from tasks.merging.compose import Weighed, Weighing
from tasks.merging.program import Settings
from tasks.parameters.merge import MergeParams

LEAST_INFORMATION = 1e-6
"""Of an element's information, whose root mean square over a model is 1: where no checkpoint depends on an
element it is averaged (Matena and Raffel's, who take it before they divide by the model's norm)."""


def by_information(settings: Settings) -> Weighing:
    """F_i of each element, at least LEAST_INFORMATION (Matena and Raffel 2022, arXiv 2111.09832).

    1 where nothing was measured, of tensors that the model does not compute with.
    """
    unmeasured = [1.0] * settings.count
    return lambda block: Weighed([own.clip(min=LEAST_INFORMATION) for own in block.importance] or unmeasured)
    yield  # makes this a generator


def check_no_adapters(params: MergeParams) -> None:
    """Raise BadInput: what an adapter's factors are worth says nothing of the elements of their product."""
    raise BadInput(
        "merge.method",
        f"{params.method} measures whole models, and these are adapters",
        "take another method",
    )
