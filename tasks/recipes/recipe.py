"""A merge as a file: which checkpoints, and how.

    checkpoints: [DIR, ...]     # oldest first; relative to the file's directory
    base: DIR                   # optional
    method: ties
    ties: {density: 0.3}        # any key of the merge section

A file with `merge_method` is mergekit's, and is translated first.
"""

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from tasks.base.errors import BadInput
from tasks.parameters.merge import MergeParams
from tasks.parameters.reading import key_of_setting, load_yaml, override, parse
from tasks.recipes.mergekit import translate
from tasks.recipes.places import located


class Recipe(NamedTuple):
    """What a recipe asks for."""

    checkpoints: list[Path]
    """Model directories, oldest first."""
    params: MergeParams
    notes: list[str]
    """What the reader of a mergekit file must know."""


class _File(MergeParams):
    """A recipe as written: the merge section and its checkpoints."""

    checkpoints: Annotated[tuple[str, ...], Field(min_length=1)]


def read_recipe(path: Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe and apply `merge.key=value` overrides.

    Raises BadInput naming the file, the key, what is wrong and what would be right.
    """
    tree = load_yaml(
        path, missing="name a recipe, or the checkpoints to merge", holds="checkpoints and method"
    )
    notes: list[str] = []
    if "merge_method" in tree:
        tree, notes = translate(tree, path)
    file = parse(_File, tree, where=str(path))
    given = {key: value for key, value in tree.items() if key != "checkpoints"}
    if file.base is not None:
        given["base"] = str(located(file.base, path, "base"))
    checkpoints = [
        located(name, path, f"checkpoints.{position}") for position, name in enumerate(file.checkpoints)
    ]
    return Recipe(checkpoints, read_merge_params(overrides, given), notes)


def recipe_of(named: Sequence[Path], overrides: Iterable[str]) -> Recipe:
    """Take the one recipe file that is named, or make a recipe of checkpoint directories."""
    if len(named) == 1 and named[0].suffix in (".yaml", ".yml"):
        return read_recipe(named[0], overrides)
    return Recipe(list(named), read_merge_params(overrides), [])


def read_merge_params(overrides: Iterable[str], given: Mapping[str, Any] | None = None) -> MergeParams:
    """Build the merge section alone, for merges outside a pipeline: `merge.key=value` on top of `given`."""
    tree: dict[str, Any] = {"merge": deepcopy(dict(given or {}))}
    for setting in overrides:
        if not setting.startswith("merge."):
            raise BadInput(
                f"--set {key_of_setting(setting)}",
                "a merge of named checkpoints takes only merge.* keys",
                "leave it out",
            )
        override(tree, setting)
    return parse(MergeParams, tree["merge"], where="--set", prefix="merge.")
