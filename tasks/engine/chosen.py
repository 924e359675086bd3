"""What a merge of selected checkpoints is made by: parameters that they decide, and its identity."""

from collections.abc import Sequence

from tasks.base.model_files import base_directory
from tasks.base.records import Checkpoint, digest_of
from tasks.parameters.merge import MergeParams


def resolved(params: MergeParams, chosen: Sequence[Checkpoint]) -> MergeParams:
    """Name the adapters' own base where they become a full model, and weigh means by their steps."""
    counts = tuple(float(checkpoint.averaged) for checkpoint in chosen)
    if params.method == "average" and params.weights == "uniform" and len(set(counts)) > 1:
        return params.model_copy(update={"weights": counts})
    base = chosen[-1].base
    if not params.full or params.base or base is None:
        return params
    return params.model_copy(update={"base": str(base_directory(base))})


def merge_key(params: MergeParams, chosen: Sequence[Checkpoint]) -> str:
    """Return the identity of what is to be merged and of the section that says how; devices do not count."""
    told = params.model_dump(mode="json", exclude={"device"})
    return digest_of([told, [checkpoint.digest for checkpoint in chosen]])
