"""mergekit's YAML as a recipe of ours, for the methods both have; anything else is refused by name.

Written against mergekit 0.1.5 (config.py, plan.py, merge_methods/), whose defaults differ from Loreline's.
"""

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from tasks.base.errors import BadInput
from tasks.parameters.reading import parse
from tasks.parameters.section import Section
from tasks.recipes.mergekit_methods import MERGEKIT_METHODS, Merge, MergekitMethod, Model
from tasks.recipes.mergekit_settings import Scope, holds_gradient
from tasks.recipes.mergekit_slices import check_all_layers

VOCABULARIES = ("base", "union")
"""Sources of a tokenizer that are all the same where the models have one vocabulary."""
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
    name: str | None = None
    modules: Any = None
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
    """Return a recipe of ours as a plain tree, and what its reader must know.

    Raises BadInput for what is malformed, or naming together all that Loreline lacks.
    """
    config = parse(_Config, tree, where=str(path))
    method = MERGEKIT_METHODS.get(config.merge_method)
    lacking = list(_lacking(config, path))
    try:
        merge = _merge(config, path)
        recipe = method.translate(merge) if method is not None else {}
    except BadInput as error:
        raise _together([*lacking, error], path) from None
    if lacking or method is None:
        raise _together(lacking, path)
    dtype = _dtype(config)
    notes = [*_unread(merge, method), *method.notes, *_tokenizer_notes(config)]
    return recipe | ({"dtype": dtype} if dtype else {}), notes


def _together(lacking: Sequence[BadInput], path: Path) -> BadInput:
    """Return several errors of one file as one, so that a reader need not meet them one by one."""
    if len(lacking) == 1:
        return lacking[0]
    problems = [f"{error.subject}: {error.problem}".removeprefix(f"{path}: ") for error in lacking]
    return BadInput(path, "; ".join(problems), "; ".join(dict.fromkeys(error.remedy for error in lacking)))


def _lacking(config: _Config, path: Path) -> Iterator[BadInput]:
    """Yield what a file asks for that no merge of Loreline does."""
    if config.merge_method not in MERGEKIT_METHODS:
        problem = f"merge_method: Loreline has no {config.merge_method}"
        yield BadInput(path, problem, f"it reads {', '.join(MERGEKIT_METHODS)}")
    if config.modules is not None:
        yield BadInput(path, "modules: Loreline merges a model as one", "list the models under models")
    if (name := _dtype(config)) and name not in MERGEKIT_DTYPES:
        known = ", ".join(MERGEKIT_DTYPES)
        yield BadInput(f"{path}: dtype", f"Loreline writes {known}, not {name}", "choose one of them")
    for position, entry in enumerate(config.models):
        if "+" in entry.model:
            yield BadInput(
                f"{path}: models.{position}.model",
                f"{entry.model} adds an adapter",
                "merge it into its model first (peft's merge_and_unload), and name the result",
            )
    if config.tokenizer_source not in (None, *VOCABULARIES):
        yield BadInput(
            path, "tokenizer_source: Loreline merges models of one vocabulary", "leave it out, or say base"
        )
    if config.tokenizer not in (None, *({"source": source} for source in VOCABULARIES)):
        yield BadInput(
            path, "tokenizer: Loreline changes no vocabulary", "leave it out, or say {source: base}"
        )
    if config.chat_template not in (None, "auto"):
        yield BadInput(
            path, "chat_template: Loreline copies the tokenizer as it is", "leave it out, set it afterwards"
        )


def _merge(config: _Config, path: Path) -> Merge:
    """See slices that make up whole models as models."""
    if bool(config.models) == bool(config.slices):
        raise BadInput(
            path, "Loreline merges whole models", "list them under models, without slices of layers"
        )
    given = Scope(f"{path}: parameters", config.parameters or {})
    if config.models:
        return Merge(path, _models(config.models, f"{path}: models"), config.base_model, [given])
    first = config.slices[0]
    ranges = [[source.layer_range for source in piece.sources] for piece in config.slices]
    if len(config.slices) > 1 and not _alike(config):
        raise BadInput(
            path, "slices: Loreline merges all layers alike", "list the models under models, without slices"
        )
    for source, *layers in zip(first.sources, *ranges, strict=True):
        check_all_layers(source.model, layers, path)
    return Merge(
        path,
        _models(first.sources, f"{path}: slices.0.sources"),
        first.base_model or config.base_model,
        [Scope(f"{path}: slices.0.parameters", first.parameters or {}), given],
    )


def _alike(config: _Config) -> bool:
    """Tell whether all slices are of the same models with the same parameters, none a gradient.

    A gradient runs through the layers of its slice, not through those of the model.
    """
    plain = [
        piece.model_copy(
            update={
                "sources": tuple(
                    source.model_copy(update={"layer_range": (0, 0)}) for source in piece.sources
                )
            }
        )
        for piece in config.slices
    ]
    own = [source.parameters for source in config.slices[0].sources]
    scopes = [config.parameters, config.slices[0].parameters, *own]
    return all(piece == plain[0] for piece in plain) and not any(map(holds_gradient, scopes))


def _models(models: Sequence[_Model], where: str) -> list[Model]:
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


def _dtype(config: _Config) -> str:
    return (config.out_dtype or config.dtype or "").removeprefix("torch.")


def _tokenizer_notes(config: _Config) -> list[str]:
    asked = config.tokenizer_source or (config.tokenizer or {}).get("source")
    one = "the union of one vocabulary is that vocabulary; models of another are refused"
    return [one] if asked == "union" else []
