"""Finding the model that a run's adapters are made for, on this machine: nothing is downloaded."""

from collections.abc import Sequence
from pathlib import Path

from tasks.base.digests import file_digests
from tasks.base.directories import hub_cache_dir
from tasks.base.errors import BadInput
from tasks.base.hub_address import HUB
from tasks.base.json_files import read_json
from tasks.base.model_files import address_directory
from tasks.base.records.model import AdapterBase
from tasks.checkpoints.layout import is_adapter, wanted_files
from tasks.checkpoints.peft.config import read_config
from tasks.checkpoints.weights import open_weights
from tasks.sources.hub_cache import COMMIT_HASH, REF

SET_BASE = "set fetch.base to the model that the adapters were trained on"


def find_base(named: str | None, checkpoints: Sequence[Path]) -> AdapterBase | None:
    """Return the base of a run whose checkpoints are adapters, with its digests; None for whole models.

    Raises BadInput as `base_address` does.
    """
    address = base_address(named, checkpoints)
    if address is None:
        return None
    directory = address_directory(address)
    return AdapterBase(address=address, files=file_digests(directory, wanted_files(directory)))


def base_address(named: str | None, checkpoints: Sequence[Path]) -> str | None:
    """Return the address of the base of a run whose checkpoints are adapters; None for whole models.

    `named` is fetch.base; without it the base is what the adapters name, a directory relative to the run
    or to the working directory, or a repository in the Hub's cache. Raises BadInput for a mixed run, and
    for a base that is not here, is quantised, or is not one.
    """
    adapters = [directory for directory in checkpoints if is_adapter(directory)]
    if not adapters:
        return None
    if whole := [directory for directory in checkpoints if directory not in adapters]:
        raise BadInput(
            whole[0], f"is a whole model, but {adapters[0].name} an adapter", "fetch runs of one kind"
        )
    addresses = [named_address(named, Path())] if named else [_named_base(adapter) for adapter in adapters]
    if others := [address for address in addresses if address != addresses[0]]:
        raise BadInput(
            adapters[addresses.index(others[0])],
            f"was trained on {others[0]}, but {adapters[0].name} on {addresses[0]}",
            SET_BASE,
        )
    _check_base(addresses[0])
    return addresses[0]


def _named_base(adapter: Path) -> str:
    config = read_config(adapter)
    if not config.base_model_name_or_path:
        raise BadInput(adapter, "does not say which model it is an adapter of", SET_BASE)
    revision = f"@{config.revision}" if config.revision else ""
    return named_address(f"{config.base_model_name_or_path}{revision}", adapter.parent)


def named_address(named: str, run: Path) -> str:
    """Return the one address of a base: a directory, else hf://org/name@commit in the Hub's cache.

    Raises BadInput where it is neither.
    """
    for place in (run / named, Path(named)):
        if place.is_dir():
            absolute, here = place.resolve(), Path.cwd()
            return str(absolute.relative_to(here) if absolute.is_relative_to(here) else absolute)
    repo, _, revision = named.removeprefix(HUB).partition("@")
    commit = _cached_commit(repo, revision or "main")
    if commit is None:
        raise BadInput(
            named,
            "the base is no directory here, and not in the Hub's cache",
            f"download it with hf download {repo}, or set fetch.base to its directory",
        )
    return f"{HUB}{repo}@{commit}"


def _cached_commit(repo: str, revision: str) -> str | None:
    """Return the commit that the cache has of a revision; None where it has none."""
    cache = hub_cache_dir(repo)
    note = cache / "refs" / revision
    if REF.fullmatch(revision) and note.is_file():
        revision = note.read_text(encoding="utf-8").strip()
    known = COMMIT_HASH.fullmatch(revision) and REF.fullmatch(repo)
    return revision if known and (cache / "snapshots" / revision).is_dir() else None


def _check_base(address: str) -> None:
    """Raise BadInput unless a base is whole, in floating point, and not in pickles."""
    directory = address_directory(address)
    if "quantization_config" in read_json(directory / "config.json"):
        raise BadInput(
            address, "the base of the adapters is quantised", "set fetch.base to the unquantised model"
        )
    open_weights(directory, f"base {address}")
