"""The weight c_i of each checkpoint, as merge.weights says."""

from tasks.base.errors import BadInput
from tasks.base.measures import Averaged, WeightsUsed
from tasks.merging import norms
from tasks.merging.block import Block
from tasks.merging.compose import Weighed, Weighing
from tasks.merging.program import Settings, check_counts
from tasks.parameters.merge import MergeParams

LARGE = 10.0
"""A share of the average beyond which the differences of checkpoints are blown up."""


def chosen(settings: Settings) -> Weighing:
    """Weigh by `merge.weights`: uniform, nan, metagpt, or the numbers given."""
    rule = settings.params.weights
    if rule == "uniform":
        return (yield from uniform(settings))
    if rule == "nan":
        return (yield from norms.nan(settings))
    if rule == "metagpt":
        return (yield from norms.metagpt(settings))
    return (yield from given(settings))


def check_average(settings: Settings) -> None:
    """Raise BadInput also where the weights add up to 0, which an average divides by."""
    check_counts(settings)
    for tensor in settings.shapes:
        weights = settings.at(tensor).weights
        if not isinstance(weights, str) and sum(weights) == 0:
            raise BadInput(
                "merge.weights",
                f"{list(weights)} add up to 0 for {tensor}, and {settings.params.method} divides by "
                "their sum",
                "give weights with another sum",
            )


def cancelling(settings: Settings) -> list[str]:
    """Warn of weights that nearly cancel: divided by their sum they are large, and so is what they add up."""
    largest = 0.0
    for tensor in settings.shapes:
        weights = settings.at(tensor).weights
        if not isinstance(weights, str):
            largest = max(largest, max(abs(weight) for weight in weights) / abs(sum(weights)))
    if largest <= LARGE:
        return []
    return [f"the weights nearly cancel: divided by their sum, the largest is {largest:.3g}"]


def spans_model(params: MergeParams) -> bool:
    """Tell whether `chosen` has to see the whole model before it can weigh any tensor."""
    per_model = {"nan": params.nan.per == "model", "metagpt": params.metagpt.per == "model"}
    return isinstance(params.weights, str) and per_model.get(params.weights, False)


def uniform(settings: Settings) -> Weighing:
    """1 for every checkpoint."""
    return lambda block: Weighed([1.0] * settings.count)
    yield  # makes this a generator


def averaged(settings: Settings) -> Weighing:
    """1 for every checkpoint, for methods whose settings reduce them to the plain average."""
    return lambda block: Weighed([1.0] * settings.count, Averaged(identical=False))
    yield  # makes this a generator


def given(settings: Settings) -> Weighing:
    """As `merge.weights` says, number by number."""

    def weigh(block: Block) -> Weighed:
        c = [float(weight) for weight in settings.at(block.tensor).weights]
        return Weighed(c, WeightsUsed(weights=tuple(c)))

    return weigh
    yield  # makes this a generator
