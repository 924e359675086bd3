"""Several runs of one base that become one merge: their names, and what they must have in common."""

from collections.abc import Sequence
from pathlib import Path

from tasks.base.errors import BadInput
from tasks.base.records.training_run import LeftOut, OneOfRuns, TrainingRun
from tasks.parameters.fetch import SEVERAL, FetchParams
from tasks.parameters.registration import RegisterParams
from tasks.sources.addresses import normal_address, observe, source_of
from tasks.sources.run_status import RunStatus, joint_status
from tasks.sources.source import FetchedRun

RUNS_NAMED = 3
"""Runs that the name of all has; of more only the first."""


def names_of(addresses: Sequence[str]) -> list[str]:
    """Return the runs' names, numbered where two are alike; raises BadInput for one run by two addresses."""
    if len(addresses) == 1:
        return [source_of(addresses[0]).run_name(addresses[0])]
    places = [normal_address(address, Path()) for address in addresses]
    for i, place in enumerate(places):
        if place in places[:i]:
            _refuse(addresses[places.index(place)], f"is the same run as {addresses[i]}")
    names = [source_of(address).run_name(address).replace("/", "--") for address in addresses]
    if len(set(names)) == len(names):
        return names
    return [f"{name}-{number}" for number, name in enumerate(names, 1)]


def named_after(run: str, found: FetchedRun) -> FetchedRun:
    """Put the run's name before those of its checkpoints, whose steps are other runs' too."""
    checkpoints, means = (
        [own._replace(name=f"{run}/{own.name}", run=run) for own in group]
        for group in (found.checkpoints, found.means)
    )
    left_out = [LeftOut(name=f"{run}/{left.name}", reason=left.reason) for left in found.left_out]
    return FetchedRun(checkpoints, left_out, means)


def joined(runs: Sequence[TrainingRun]) -> TrainingRun:
    """Return runs as one; a single run as it is.

    Raises BadInput for runs with the same checkpoints, and where they are not all whole models, or all
    adapters of one base.
    """
    first, *others = runs
    if not others:
        return first
    for i, run in enumerate(runs):
        if same := [own for own in runs[:i] if own.digest == run.digest]:
            _refuse(same[0].source, f"holds the same checkpoints as {run.source}")
        if _base(run) != _base(first):
            _refuse(first.source, f"is of {_kind(first)}, but {run.source} of {_kind(run)}")
    names = [run.name for run in runs]
    return TrainingRun(
        name="+".join(names) if len(names) <= RUNS_NAMED else f"{names[0]}+{len(others)}-more",
        source=SEVERAL.join(run.source for run in runs),
        checkpoints=tuple(own for run in runs for own in run.checkpoints),
        left_out=tuple(own for run in runs for own in run.left_out),
        means=tuple(own for run in runs for own in run.means),
        several=tuple(OneOfRuns(name=run.name, source=run.source, rates=run.rates) for run in runs),
    )


def observe_runs(fetch: FetchParams, quiet_for: float, registry: RegisterParams) -> RunStatus:
    """Look once at what is to be fetched; it has ended when all runs have. Raises as `observe` does."""
    return joint_status({address: observe(address, quiet_for, registry) for address in fetch.runs})


def _base(run: TrainingRun) -> str | None:
    base = run.checkpoints[0].base
    return base.digest if base else None


def _kind(run: TrainingRun) -> str:
    base = run.checkpoints[0].base
    return f"adapters of {base.address} ({base.digest[:12]})" if base else "whole models"


def _refuse(subject: str, problem: str) -> None:
    raise BadInput("fetch.source", f"{subject} {problem}", "list different runs of one base")
