"""mergekit's YAML as a recipe of ours, for the methods both have; anything else is refused by name.

Written against mergekit 0.1.5 (config.py, plan.py, merge_methods/), whose defaults differ from Loreline's.
"""

import difflib
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from tasks.base.errors import BadInput
from tasks.parameters.reading import parse
from tasks.parameters.section import Section
from tasks.recipes.mergekit_methods import MERGEKIT_METHODS, Merge, MergekitMethod, Model
from tasks.recipes.mergekit_settings import Scope
from tasks.recipes.mergekit_slices import check_all_layers

MERGEKIT_DTYPES = ("float32", "float16", "bfloat16")
KNOWN = frozenset[str]().union(*(method.shared | method.each for method in MERGEKIT_METHODS.values()))
"""Parameters that at least one method reads; mergekit reads over them where another is used."""


class _Model(Section):
    model: str
    parameters: dict[str, Any] | None = None


class _Source(_Model):
    layer_range: tuple[int, int]


class _Slice(Section):
    sources: Annotated[tuple[_Source, ...], Field(min_length=1)]
    base_model: str | None = None
    parameters: dict[str, Any] | None = None


class _Config(Section):
    merge_method: str
    models: tuple[_Model, ...] = ()
    slices: tuple[_Slice, ...] = ()
    base_model: str | None = None
    parameters: dict[str, Any] | None = None
    dtype: str | None = None
    out_dtype: str | None = None
    tokenizer_source: Any = None
    tokenizer: Any = None
    chat_template: str | None = None


def translate(tree: dict[str, Any], path: Path) -> tuple[dict[str, Any], list[str]]:
    """Return a recipe of ours as a plain tree, and what its reader must know (BadInput for what we lack)."""
    if "modules" in tree:
        raise BadInput(path, "modules: Loreline merges a model as one", "list the models under models")
    config = parse(_Config, tree, where=str(path))
    method = MERGEKIT_METHODS.get(config.merge_method)
    if method is None:
        raise BadInput(
            path,
            f"merge_method: Loreline has no {config.merge_method}",
            f"it reads {', '.join(MERGEKIT_METHODS)}",
        )
    _check_tokenizer(config, path)
    merge = _merge(config, path)
    recipe = method.translate(merge) | _dtype(config, path)
    return recipe, [*_unread(merge, method), *method.notes]


def _merge(config: _Config, path: Path) -> Merge:
    """See a single slice of whole models as models."""
    if bool(config.models) == bool(config.slices) or len(config.slices) > 1:
        raise BadInput(
            path, "Loreline merges whole models", "list them under models, without slices of layers"
        )
    given = Scope(f"{path}: parameters", config.parameters or {})
    if config.models:
        return Merge(path, _models(config.models, f"{path}: models"), config.base_model, [given])
    only = config.slices[0]
    for source in only.sources:
        check_all_layers(source.model, source.layer_range, path)
    return Merge(
        path,
        _models(only.sources, f"{path}: slices.0.sources"),
        only.base_model or config.base_model,
        [Scope(f"{path}: slices.0.parameters", only.parameters or {}), given],
    )


def _models(models: tuple[_Model, ...], where: str) -> list[Model]:
    for position, entry in enumerate(models):
        if "+" in entry.model:
            raise BadInput(
                f"{where}.{position}.model",
                f"{entry.model} adds an adapter",
                "merge it into its model first (peft's merge_and_unload), and name the result",
            )
    return [
        Model(entry.model, Scope(f"{where}.{position}.parameters", entry.parameters or {}))
        for position, entry in enumerate(models)
    ]


def _unread(merge: Merge, method: MergekitMethod) -> list[str]:
    """Name the parameters that have no effect, as in mergekit; refuse those that nobody knows (BadInput)."""
    inputs = merge.models if method.base_is_input else merge.others
    read = [(model.own, method.each if model in inputs else frozenset()) for model in merge.models]
    read += [(scope, method.shared | method.each) for scope in merge.shared]
    notes = []
    for scope, keys in read:
        for key in [key for key in scope.parameters if key not in keys]:
            if key not in KNOWN:
                near = difflib.get_close_matches(str(key), KNOWN, n=1)
                meant = f"did you mean {near[0]}?" if near else "remove it"
                raise BadInput(scope.where, f"unknown key {key}", meant)
            notes.append(f"{scope.where}.{key} has no effect")
    return notes


def _dtype(config: _Config, path: Path) -> dict[str, str]:
    name = (config.out_dtype or config.dtype or "").removeprefix("torch.")
    if name and name not in MERGEKIT_DTYPES:
        known = ", ".join(MERGEKIT_DTYPES)
        raise BadInput(f"{path}: dtype", f"Loreline writes {known}, not {name}", "choose one of them")
    return {"dtype": name} if name else {}


def _check_tokenizer(config: _Config, path: Path) -> None:
    if config.tokenizer_source not in (None, "base"):
        raise BadInput(
            path,
            "tokenizer_source: Loreline merges models of one vocabulary",
            "leave it out, or say base",
        )
    if config.tokenizer not in (None, {"source": "base"}):
        raise BadInput(
            path, "tokenizer: Loreline changes no vocabulary", "leave it out, or say {source: base}"
        )
    if config.chat_template not in (None, "auto"):
        raise BadInput(
            path,
            "chat_template: Loreline copies the tokenizer as it is",
            "leave it out, set it afterwards",
        )
