"""A candidate's settings, put into the merge section."""

from collections.abc import Mapping, Sequence

from tasks.base.errors import BadInput
from tasks.merging.methods import METHODS
from tasks.parameters.merge import MergeParams
from tasks.parameters.reading import parse, placed
from tasks.parameters.search import NEWEST, SearchParams
from tasks.search.candidate import Value
from tasks.search.layer_kinds import LAYER_KINDS, for_layer_kinds

SHARED_BY_FEW = ("lam", "weights")
"""Keys of the merge section that a method refuses if it does not read them."""


def merge_params(merge: MergeParams, settings: Sequence[tuple[str, Value]]) -> MergeParams:
    """Return the merge section with a candidate's settings; raises BadInput for values that it does not take.

    What the candidate's method does not read of the section, and would refuse, is left out.
    """
    tree = merge.model_dump(mode="json", exclude_unset=True)
    method = dict(settings).get("method", merge.method)
    if method in METHODS:
        for key in SHARED_BY_FEW:
            if key not in METHODS[str(method)].sections:
                tree.pop(key, None)
    for key, value in settings:
        tree = placed(tree, key.split("."), list(value) if isinstance(value, tuple) else value)
    params = parse(MergeParams, tree, where="search", prefix="merge.")
    if METHODS[params.method].measures:
        raise BadInput(
            "search",
            f"{params.method} cannot be tried, because it would measure checkpoints on the items that choose",
            "leave it out of search.over, or out of merge.method with a budget",
        )
    return params


def is_read(merge: MergeParams, key: str, settings: Mapping[str, Value]) -> bool:
    """Tell whether the method that is set, else the section's own, reads a key of the merge section."""
    method = str(settings.get("method", merge.method))
    return method not in METHODS or key.partition(".")[0] in METHODS[method].sections


def check_space(params: SearchParams, merge: MergeParams, count: int) -> None:
    """Raise BadInput for keys and values that merge does not take, before anything is evaluated."""
    named = params.over or params.between or params.by_layer_kind
    if named and params.sampler in ("surface", "greedy"):
        raise BadInput(
            "search.sampler",
            f"{params.sampler} searches weights alone",
            "take tpe, or leave out over, between and by_layer_kind",
        )
    if params.by_layer_kind and params.sampler != "tpe" and not params.between:
        raise BadInput("search.by_layer_kind", "there is no number to draw", "name ranges in search.between")
    if NEWEST in params.between:
        raise BadInput(
            f"search.between.{NEWEST}", "is a number of checkpoints", "list numbers in search.over"
        )
    keys: dict[str, list[Value]] = {key: list(values) for key, values in params.over.items()}
    keys |= {key: list(ends) for key, ends in params.between.items()}
    for key, values in keys.items():
        for value in values:
            if key == NEWEST:
                if not isinstance(value, int) or not 2 <= value <= count:
                    raise BadInput(
                        f"search.over.{NEWEST}", f"{value} is not among 2 to {count}", "correct it"
                    )
            else:
                merge_params(merge, [(key, value)])
                if params.by_layer_kind and key in params.between and isinstance(value, float):
                    merge_params(merge, [(key, for_layer_kinds(dict.fromkeys(LAYER_KINDS, value)))])
