"""Where a model's files are: one directory, and for an adapter another one with its base."""

from pathlib import Path
from typing import NamedTuple

from tasks.base.digests import file_digests
from tasks.base.directories import hub_cache_dir
from tasks.base.errors import BadInput
from tasks.base.hub_address import HUB
from tasks.base.records.model import AdapterBase, MergedBase


class ModelFiles(NamedTuple):
    """A model on this machine."""

    directory: Path
    base: Path | None = None
    """The model that `directory` is an adapter of; None where it holds a whole model."""


def on_base(directory: Path, base: AdapterBase | None) -> ModelFiles:
    """Return an adapter on its base, whose files are checked, or a whole model."""
    return ModelFiles(directory, base_directory(base) if base else None)


def published_model(directory: Path, known: AdapterBase | None = None) -> ModelFiles:
    """Return a merge that was published or registered, by its merge.json; any other directory is a model.

    `known` is a base that is here: a merge of another machine may need the same one and know it elsewhere.
    """
    report = directory / "merge.json"
    base = MergedBase.read(report).base if report.is_file() else None
    return on_base(directory, known if base and known and _is_same(base, known) else base)


def _is_same(base: AdapterBase, known: AdapterBase) -> bool:
    """Tell whether a base that is here is another record's, which may have other digests of it."""
    directory = address_directory(known.address)
    paths = [directory / file.name for file in known.files]
    if base.digest == known.digest or not all(path.is_file() for path in paths):
        return base.digest == known.digest
    files = file_digests(directory, paths, base.files)
    return known.model_copy(update={"files": files}).digest == base.digest


def base_directory(base: AdapterBase) -> Path:
    """Return the directory of a base; raises BadInput when it is gone or its files have changed."""
    directory = address_directory(base.address)
    paths = [directory / file.name for file in base.files]
    there = all(path.is_file() for path in paths)
    if there and file_digests(directory, paths, base.files) == base.files:
        return directory
    raise BadInput(
        base.address,
        "this base of adapters has changed" if there else "this base of adapters is not on this machine",
        "bring it back, or name it as fetch.base and run loreline fetch --refresh",
    )


def address_directory(address: str) -> Path:
    """Return the directory of a base's address: itself, or the commit's in the Hub's cache."""
    if not address.startswith(HUB):
        return Path(address)
    repo, _, commit = address.removeprefix(HUB).partition("@")
    return hub_cache_dir(repo) / "snapshots" / commit
