"""Sweeps: a merge for every combination of some parameters' values, each with a directory of its own."""

import json
import math
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from tasks.base.errors import BadInput
from tasks.merging.methods import METHODS
from tasks.parameters.merge import MergeParams
from tasks.parameters.reading import DEEPEST_KEY, parse, placed, plain_value

LIMIT = 100
"""Combinations; a longer list is a typing error, or a search that wants another tool."""

SHARED = ("method", "base", "dtype", "on_nan", "device", "max_shard_size", "calibration", "adamerging")
"""What decides how files are measured, learned on, read, grouped or written: all variants share it."""


class Axis(NamedTuple):
    """The values of one parameter."""

    key: str
    """Without `merge.`."""
    values: Sequence[Any]


def grid(params: MergeParams, sweeps: Sequence[str], out: Path) -> dict[Path, MergeParams]:
    """Return directory → parameters for every combination; without sweeps, `out` and the parameters as given.

    Raises BadInput for a sweep that is none: one sentence, naming it.
    """
    axes = [_axis(text) for text in sweeps]
    _check_extent(axes)
    for axis in axes:
        _check(axis, params)
    if axes and (out / "merge.json").is_file():
        raise BadInput(out, "is a merge itself", "name another directory with --out for those of a sweep")
    combinations = product(*(axis.values for axis in axes))
    return {out / _name(axes, values): _varied(params, axes, values) for values in combinations}


def _axis(text: str) -> Axis:
    """Read `merge.key=value,value`."""
    key, _, listed = text.partition("=")
    section, _, own = key.partition(".")
    if (
        section != "merge"
        or not own
        or own.count(".") > DEEPEST_KEY
        or not all(value.strip() for value in listed.split(","))
    ):
        raise BadInput(f"--sweep {text}", "is no sweep", "write it as merge.key=value,value")
    return Axis(own, [_value(value, text) for value in listed.split(",")])


def _value(text: str, sweep: str) -> Any:
    try:
        value = plain_value(text)
    except ValueError:
        value = []
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise BadInput(f"--sweep {sweep}", f"{text.strip()} is no number or word", "give the others with --set")


def _check_extent(axes: Sequence[Axis]) -> None:
    """Refuse a key that is given twice, and too many combinations."""
    keys = [axis.key for axis in axes]
    for key in keys:
        if keys.count(key) > 1:
            raise BadInput(f"--sweep merge.{key}", "is given twice", "put all values into one list")
    count = math.prod(len(axis.values) for axis in axes)
    if count > LIMIT:
        raise BadInput("--sweep", f"{count} combinations, and at most {LIMIT} are merged", "leave out some")


def _check(axis: Axis, params: MergeParams) -> None:
    """Refuse what no variant can have of its own, and values that change nothing."""
    section = axis.key.split(".")[0]
    if section in SHARED:
        raise BadInput(f"--sweep merge.{axis.key}", "all merges of a sweep share it", "give it with --set")
    found = [_varied(params, [axis], [value]) for value in axis.values]
    for i, value in enumerate(axis.values):
        if found[i] in found[:i]:
            raise BadInput(
                f"--sweep merge.{axis.key}", f"{_text(value)} is there twice", "give each value once"
            )
    if section not in METHODS[params.method].sections:
        raise BadInput(
            f"--sweep merge.{axis.key}", f"method {params.method} does not read it", "leave it out"
        )


def _varied(params: MergeParams, axes: Sequence[Axis], values: Sequence[Any]) -> MergeParams:
    """Return the parameters as `--set` would have made them with these values."""
    tree = params.model_dump(mode="json", exclude_unset=True)
    for axis, value in zip(axes, values, strict=True):
        tree = placed(tree, axis.key.split("."), value)
    return parse(MergeParams, tree, where="--sweep", prefix="merge.")


def _name(axes: Sequence[Axis], values: Sequence[Any]) -> str:
    return ",".join(f"{axis.key}={_text(value)}" for axis, value in zip(axes, values, strict=True))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
