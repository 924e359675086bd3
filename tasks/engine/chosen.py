"""What a merge of selected checkpoints is made by: parameters that they decide, and its identity."""

from collections.abc import Sequence

from tasks.base.errors import BadInput
from tasks.base.json_digest import digest_of
from tasks.base.model_files import base_directory
from tasks.base.records.training_run import Checkpoint, shares_of_runs
from tasks.merging.methods import METHODS
from tasks.parameters.merge import MergeParams


def resolved(params: MergeParams, chosen: Sequence[Checkpoint]) -> MergeParams:
    """Weigh several runs alike and means by their steps; name the base of adapters that become a full model.

    Raises BadInput for a method that cannot weigh runs alike.
    """
    counts = tuple(float(checkpoint.averaged) for checkpoint in chosen)
    if len(shares := shares_of_runs(chosen)) > 1:
        params = _soup(params, shares)
    elif params.method == "average" and params.weights == "uniform" and len(set(counts)) > 1:
        return params.model_copy(update={"weights": counts})
    base = chosen[-1].base
    if not params.full or params.base or base is None:
        return params
    return params.model_copy(update={"base": str(base_directory(base))})


def _soup(params: MergeParams, shares: Sequence[tuple[float, ...]]) -> MergeParams:
    """Weigh every run alike, however many checkpoints it has."""
    method, weights = METHODS[params.method], tuple(weight for run in shares for weight in run)
    if params.method == "planned":  # no line runs through several runs, and without one it is the average
        return params.model_copy(update={"method": "average", "weights": weights})
    if "weights" in method.sections:
        return params.model_copy(update={"weights": weights}) if params.weights == "uniform" else params
    if method.by_age:
        raise BadInput(
            "merge.method",
            f"{params.method} weighs the checkpoints of one run by age, and there are {len(shares)} runs",
            "take average, or one run",
        )
    if len(set(weights)) > 1:
        sizes = ", ".join(str(len(run)) for run in shares)
        raise BadInput(
            "merge.method",
            f"{params.method} gives every checkpoint the same weight, and the runs have {sizes} of them",
            "take average, or select as many of each run",
        )
    return params


def merge_key(params: MergeParams, chosen: Sequence[Checkpoint]) -> str:
    """Return the identity of what is to be merged and of the section that says how; devices do not count."""
    told = params.model_dump(mode="json", exclude={"device"})
    return digest_of([told, [checkpoint.digest for checkpoint in chosen]])
