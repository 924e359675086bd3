"""Sweep tiny checkpoints, and do the same by one command after the other."""

import itertools
from collections.abc import Sequence
from pathlib import Path

from tasks.merge_checkpoints import merge_directories, sweep_directories
from tasks.recipes.recipe import read_merge_params
from tasks.recipes.sweep import grid


def sweep(
    settings: Sequence[str], axes: dict[str, str], inputs: Sequence[Path], out: Path, **more: object
) -> list[str]:
    """Sweep over the values of each key; return the names of the directories."""
    lists = [f"merge.{key}={values}" for key, values in axes.items()]
    variants = grid(read_merge_params(settings), lists, out)
    reports = sweep_directories(variants, inputs, **more)  # type: ignore[arg-type]
    return [path.name for path in reports]


def one_by_one(settings: Sequence[str], axes: dict[str, str], inputs: Sequence[Path], out: Path) -> None:
    """Do what a user without sweeps would do."""
    for values in itertools.product(*(own.split(",") for own in axes.values())):
        given = [f"{key}={value}" for key, value in zip(axes, values, strict=True)]
        params = read_merge_params([*settings, *(f"merge.{setting}" for setting in given)])
        merge_directories(params, inputs, out / ",".join(given))


def contents(directory: Path) -> dict[str, bytes]:
    """Return the bytes of every file below a directory."""
    return {p.relative_to(directory).as_posix(): p.read_bytes() for p in directory.rglob("*") if p.is_file()}
