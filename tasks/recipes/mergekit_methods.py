"""mergekit's methods in Loreline's words: method, checkpoints in order, base, weights and parameters."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tasks.base.errors import BadInput
from tasks.recipes.mergekit_settings import Scope, Setting, all_numbers, flag, mapped, setting

RecipeTree = dict[str, Any]
"""A recipe of ours, as a plain tree."""


class Model(NamedTuple):
    """An input of a mergekit merge."""

    name: str
    own: Scope


class Merge(NamedTuple):
    """A mergekit merge of whole models."""

    path: Path
    models: list[Model]
    base: str | None
    shared: list[Scope]

    @property
    def others(self) -> list[Model]:
        """The models that are not the base."""
        return [model for model in self.models if model.name != self.base]

    def each(self, key: str, default: float | None = None) -> list[Setting]:
        """Return a parameter of every model but the base."""
        return [setting(key, [model.own, *self.shared], default) for model in self.others]

    def one_or_each(self, key: str, default: float) -> list[Setting]:
        """Return a parameter of every model but the base; once where it is the same for all."""
        found = self.each(key, default)
        return found[:1] if all(value == found[0] for value in found) else found


class MergekitMethod(NamedTuple):
    """How a method of mergekit is read."""

    translate: Callable[[Merge], RecipeTree]
    shared: frozenset[str]
    """The parameters it reads for the whole merge."""
    each: frozenset[str]
    """The parameters it reads for each model, or for all."""
    notes: tuple[str, ...] = ()
    """Where Loreline differs by design."""
    base_is_input: bool = False
    """Whether a base model is one more input, with parameters of its own."""


def _linear(merge: Merge) -> RecipeTree:
    """Translate the average; here a base model is one more input."""
    models = list(merge.models)
    if merge.base is not None and merge.base not in [model.name for model in models]:
        models.append(Model(merge.base, merge.shared[0]))
    weights = merge._replace(models=models, base=None).each("weight")
    normalized = flag("normalize", merge.shared, True)
    if not normalized and not (_plain(weights) and math.isclose(sum(weights), 1, abs_tol=1e-9)):
        raise BadInput(
            merge.path,
            "parameters.normalize: Loreline's average divides by the sum of the weights",
            "set it to true, or give weights that sum to 1",
        )
    return {"method": "average", "checkpoints": [model.name for model in models], **_weights(weights, True)}


def _slerp(merge: Merge) -> RecipeTree:
    """Translate the interpolation; t = 0 is the base model."""
    base, others = _base(merge), merge.others
    if len(others) != 1:
        raise BadInput(
            f"{merge.path}: models",
            f"slerp takes base_model and one other model, not {len(others)} others",
            "name two models",
        )
    t = setting("t", merge.shared)
    return {"method": "slerp", "checkpoints": [base, others[0].name], "slerp": {"t": t}}


def _nuslerp(merge: Merge) -> RecipeTree:
    """Translate the interpolation by weights; without a base it is slerp of whole tensors."""
    for key, ours in (("nuslerp_flatten", True), ("nuslerp_row_wise", False)):
        if flag(key, merge.shared, ours) != ours:
            raise BadInput(merge.path, f"parameters.{key}: Loreline turns whole tensors", "leave it out")
    if merge.base is not None:
        raise BadInput(
            merge.path, "base_model: Loreline's slerp turns weights, not task vectors", "leave it out"
        )
    weights = merge.each("weight")
    if len(weights) != 2 or not _plain(weights):
        raise BadInput(
            f"{merge.path}: models", "nuslerp takes two models, a number as weight of each", "name two models"
        )
    whole = sum(weights)
    t = weights[1] / whole if abs(whole) >= 1e-6 else 0.5
    return {"method": "slerp", "checkpoints": [model.name for model in merge.models], "slerp": {"t": t}}


def _model_stock(merge: Merge) -> RecipeTree:
    if flag("filter_wise", merge.shared, False):
        raise BadInput(
            merge.path, "parameters.filter_wise: Loreline measures whole tensors", "set it to false"
        )
    return {"method": "model_stock", **_task_vectors(merge)}


def _sum(merge: Merge, method: str, sections: Callable[[Merge], RecipeTree]) -> RecipeTree:
    """Translate a method that adds weighted task vectors up."""
    weights = merge.each("weight")
    if flag("normalize", merge.shared, False):
        if not _plain(weights):
            raise BadInput(
                merge.path,
                "parameters.normalize: weights that vary cannot be normalized here",
                "set it to false, and give weights that sum to 1",
            )
        whole = sum(weights)
        weights = [weight / (whole if abs(whole) >= 1e-8 else 1) for weight in weights]
    return _common(merge, method) | _weights(weights, False) | sections(merge)


def _elect(merge: Merge, method: str, normalize: bool, sections: Callable[[Merge], RecipeTree]) -> RecipeTree:
    """Translate a method that elects signs."""
    mean = flag("normalize", merge.shared, normalize)
    translated = _common(merge, method) | _weights(merge.each("weight"), mean) | sections(merge)
    return translated | {"ties": translated["ties"] | {"normalize": mean}}


def _trim(merge: Merge) -> RecipeTree:
    _check_rescale(merge, False)
    return {"ties": {"density": _written(merge.one_or_each("density", 1.0)), "scope": "tensor"}}


def _drop(merge: Merge) -> RecipeTree:
    _check_rescale(merge, True)
    kept = merge.one_or_each("density", 1.0)
    return {"dare": {"p": _written([mapped(density, lambda density: 1 - density) for density in kept])}}


def _drop_only(merge: Merge) -> RecipeTree:
    return _drop(merge) | {"ties": {"density": 1.0, "scope": "tensor"}}


def _outliers(merge: Merge) -> RecipeTree:
    _check_rescale(merge, False)
    densities, gammas = merge.one_or_each("density", 1.0), merge.one_or_each("gamma", 0.01)
    if len(densities) != len(gammas):
        densities, gammas = merge.each("density", 1.0), merge.each("gamma", 0.01)
    outliers = [_room(merge, *pair) for pair in zip(densities, gammas, strict=True)]
    return {"breadcrumbs": {"density": _written(densities), "gamma": _written(outliers)}}


def _room(merge: Merge, density: Setting, gamma: Setting) -> Setting:
    """Return the share of outliers that a density leaves."""
    if _plain([density, gamma]):
        return min(gamma, max(1 - density, 0.0))  # mergekit gives up dropping outliers rather than density
    if max(all_numbers(density)) + max(all_numbers(gamma)) > 1:
        raise BadInput(merge.path, "parameters.density and gamma exceed 1 together", "lower one of them")
    return gamma


def _written(values: list[Setting]) -> Setting:
    """Return one value for all checkpoints, or a list of one for each."""
    return values[0] if len(values) == 1 else values


def _common(merge: Merge, method: str) -> RecipeTree:
    return {"method": method, **_task_vectors(merge), "lam": setting("lambda", merge.shared, 1.0)}


def _task_vectors(merge: Merge) -> RecipeTree:
    base = _base(merge)
    if not merge.others:
        raise BadInput(
            f"{merge.path}: models",
            "there is none beside base_model",
            "name at least one model beside base_model",
        )
    return {"base": base, "checkpoints": [model.name for model in merge.others]}


def _base(merge: Merge) -> str:
    if merge.base is None:
        raise BadInput(merge.path, "base_model is missing", "name the model that the others started from")
    return merge.base


def _check_rescale(merge: Merge, ours: bool) -> None:
    """Refuse the switch where it is not what both do by default."""
    if flag("rescale", merge.shared, ours) != ours:
        raise BadInput(
            merge.path, f"parameters.rescale: Loreline has only {str(ours).lower()} here", "leave it out"
        )


def _weights(weights: list[Setting], divided: bool) -> RecipeTree:
    """Leave out weights that change nothing: all one, or all equal where their sum is divided by."""
    same = _plain(weights) and len(set(weights)) == 1 and weights[0] != 0
    return {} if same and (divided or weights[0] == 1) else {"weights": weights}


def _plain(values: list[Setting]) -> bool:
    return all(isinstance(value, float) for value in values)


_EXACT = "computed in float32 or better and rounded once, at the end; mergekit computes in the weights' dtype"
_SHARES = "a share of a tensor is rounded to whole elements; mergekit truncates"
_NOBODY = "where the task vectors sum to zero no sign is elected; mergekit elects +"
_DRAWN = (
    "what is kept is multiplied by 1/(1 - p); mergekit restores the sum of magnitudes",
    "what is dropped depends on merge.dare.seed, tensor and checkpoint; mergekit draws otherwise",
)
_FLOOR = "cosines are exact; mergekit takes products of norms below 1e-6 as 1e-6"

_CHORD = "the chord replaces the arc up to an angle of 1.8 degrees; mergekit's nuslerp follows the arc"

_SHARED = frozenset({"lambda", "normalize", "int8_mask"})
_SPARSE = _SHARED | {"rescale"}
_WEIGHT = frozenset({"weight"})
_DENSITY = _WEIGHT | {"density"}


def _sums(method: str, sections: Callable[[Merge], RecipeTree]) -> Callable[[Merge], RecipeTree]:
    return partial(_sum, method=method, sections=sections)


def _elects(
    method: str, normalize: bool, sections: Callable[[Merge], RecipeTree]
) -> Callable[[Merge], RecipeTree]:
    return partial(_elect, method=method, normalize=normalize, sections=sections)


MERGEKIT_METHODS = {
    "linear": MergekitMethod(_linear, frozenset({"normalize"}), _WEIGHT, base_is_input=True),
    "slerp": MergekitMethod(_slerp, frozenset({"t"}), frozenset()),
    "nuslerp": MergekitMethod(
        _nuslerp, frozenset({"nuslerp_flatten", "nuslerp_row_wise"}), _WEIGHT, (_CHORD,)
    ),
    "task_arithmetic": MergekitMethod(
        _sums("task_arithmetic", lambda merge: {}), _SHARED, _WEIGHT, (_EXACT,)
    ),
    "ties": MergekitMethod(_elects("ties", True, _trim), _SPARSE, _DENSITY, (_EXACT, _SHARES, _NOBODY)),
    "dare_linear": MergekitMethod(_sums("dare", _drop), _SPARSE, _DENSITY, (_EXACT, *_DRAWN)),
    "dare_ties": MergekitMethod(
        _elects("dare_ties", False, _drop_only), _SPARSE, _DENSITY, (_EXACT, *_DRAWN, _NOBODY)
    ),
    "breadcrumbs": MergekitMethod(
        _sums("breadcrumbs", _outliers), _SPARSE, _DENSITY | {"gamma"}, (_EXACT, _SHARES)
    ),
    "model_stock": MergekitMethod(_model_stock, frozenset({"filter_wise"}), frozenset(), (_EXACT, _FLOOR)),
}
