"""Finding the kind of source of an address; the kinds are the modules in `kinds`, and none is named here."""

import pkgutil
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path

from tasks.base.records.training_run import TrainingRun
from tasks.checkpoints.run_directory import numbered_checkpoints
from tasks.parameters.fetch import FetchParams
from tasks.parameters.reading import parse
from tasks.parameters.registration import RegisterParams
from tasks.sources import kinds
from tasks.sources.run_status import RunStatus
from tasks.sources.source import RunSource


def source_of(address: str) -> RunSource:
    """Return the source of a run's, a checkpoint's or a root's address."""
    return next(source for source in _sources() if source.matches(address))


def normal_address(address: str, project: Path) -> str:
    """Return the one spelling of a run's address: a directory inside `project` is relative to it.

    Raises BadInput, without quoting it, for an address that holds a secret.
    """
    parse(FetchParams, {"source": address}, where="the run's address", prefix="fetch.")
    return source_of(address).normal_form(address, project)


def observe(address: str, quiet_for: float, registry: RegisterParams) -> RunStatus:
    """Look at a run once; it has ended when its state says so, or nothing changed for `quiet_for` seconds.

    `registry` says in which MLflow a run of MLflow is. Raises BadInput when there is no such run or no
    checkpoint, Unavailable when a server does not answer.
    """
    return source_of(address).observe(address, quiet_for, registry)


def new_checkpoints(run: TrainingRun) -> list[str]:
    """List the checkpoints that its directory holds, by step, and that were not there when it was fetched."""
    known = {left.name for left in run.left_out} | {checkpoint.name for checkpoint in run.checkpoints}
    new = []
    for own in run.runs:
        before = f"{own.name}/" if run.several else ""
        directory = source_of(own.source).directory_of(own.source)
        there = numbered_checkpoints(directory) if directory and directory.is_dir() else []
        new += [name for _, path in there if (name := f"{before}{path.name}") not in known]
    return new


def sources_in(roots: Iterable[str], project: Path, registry: RegisterParams) -> list[str]:
    """List the runs that the roots hold now, sorted, each once; relative globs start at `project`.

    Raises BadInput for a root that cannot be used, Unavailable when a server does not answer.
    """
    found = {
        source.normal_form(address, project)
        for root in roots
        for source in [source_of(root)]
        for address in source.runs_in(root, project, registry)
    }
    return sorted(found)


def _sources() -> list[RunSource]:
    """Return one instance of every kind, the one that matches everything last."""
    return sorted((kind() for kind in _kinds()), key=lambda source: source.asked_last)


def _kinds() -> Iterator[type[RunSource]]:
    for found in pkgutil.iter_modules(kinds.__path__):
        module = import_module(f"{kinds.__name__}.{found.name}")
        for each in vars(module).values():
            if isinstance(each, type) and issubclass(each, RunSource) and each.__module__ == module.__name__:
                yield each
