"""Stage fetch: record a finished training run's checkpoints and stage their files."""

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tasks.base.errors import BadInput
from tasks.base.fingerprint import fingerprint
from tasks.base.publish import is_published, publishing
from tasks.base.records.merge import MergeReport
from tasks.base.records.registration import Registration
from tasks.base.records.training_run import Checkpoint, TrainingRun
from tasks.parameters.fetch import FetchParams
from tasks.parameters.registration import RegisterParams
from tasks.parameters.watch import WatchParams
from tasks.sources.addresses import new_checkpoints, observe, source_of
from tasks.sources.base_model import find_base
from tasks.sources.conversion import convert_pickled, prune_converted
from tasks.sources.several import joined, named_after, names_of
from tasks.sources.staging import digested, prune_staged, rates_of, stage_checkpoint

log = logging.getLogger(__name__)


def fetch_run(
    params: FetchParams,
    artifacts: Path,
    refresh: bool = False,
    registry: RegisterParams = RegisterParams(),
    quiet_for: float = WatchParams().quiet_for,
) -> TrainingRun:
    """Publish artifacts/run: the usable checkpoints of `params.source`, their files staged as hard links.

    A published run is returned as it is unless `refresh`, or unless it grew and its merge is not registered.
    `registry` says in which MLflow a run of MLflow is. A run that still trains, having changed within
    `quiet_for` seconds, is fetched with a warning.
    Raises BadInput for a source without usable checkpoints or with a damaged one, for adapters whose base
    is not on this machine, and for several runs that are one or not of one base; Unavailable for a network
    that does not answer.
    """
    published = artifacts / "run"
    made_from = fingerprint(__name__, params)
    if not refresh and is_published(published, made_from):
        run = TrainingRun.read(published / "run.json")
        if not (new := new_checkpoints(run)):
            return run
        stays = _is_registered(run, artifacts)
        then = "--refresh looks again" if stays else "looking again"
        log.warning("%s: %s and later were not there when it was fetched; %s", run.source, new[0], then)
        if stays:
            return run
    named = zip(params.runs, names_of(params.runs), strict=True)
    run = joined([_fetched(params, address, name, artifacts, registry) for address, name in named])
    for address in params.runs:
        status = observe(address, quiet_for, registry)
        if not status.ended:
            log.warning("%s: %s; the merge is of the checkpoints so far", address, status.reason)
    with publishing(published, made_from) as scratch:
        run.write(scratch / "run.json")
    prune_staged(artifacts, [*run.checkpoints, *run.means])
    prune_converted(artifacts, [checkpoint.name for checkpoint in run.checkpoints if checkpoint.conversion])
    return run


def _fetched(
    params: FetchParams, address: str, name: str, artifacts: Path, registry: RegisterParams
) -> TrainingRun:
    """Bring a run's checkpoints and stage them; they are named after it too where it is one of several."""
    alone = params.of(address)
    found = source_of(address).fetch(alone, registry)
    if not found.checkpoints:
        reasons = "; ".join(f"{left.name} {left.reason}" for left in found.left_out)
        raise BadInput(
            "fetch.source",
            f"{address}: no usable checkpoint ({reasons})",
            "wait until one is whole, or raise fetch.wait",
        )
    if params.means and not found.means:
        raise BadInput(
            "fetch.means",
            f"{address}: no means over its steps were kept",
            "train with MergeAfterTraining(keep=5, mean=True), or unset it",
        )
    if len(params.runs) > 1:
        found = named_after(name, found)
    if params.convert:
        converted = [convert_pickled(checkpoint, alone, artifacts) for checkpoint in found.checkpoints]
        found = found._replace(checkpoints=converted)
    base = find_base(params.base, [checkpoint.directory for checkpoint in found.checkpoints])
    checkpoints = [stage_checkpoint(checkpoint, artifacts, base) for checkpoint in found.checkpoints]
    return TrainingRun(
        name=name,
        source=address,
        checkpoints=tuple(_told_apart(checkpoints, artifacts)),
        left_out=tuple(found.left_out),
        rates=rates_of(found.checkpoints),
        means=tuple(stage_checkpoint(mean, artifacts, None) for mean in found.means),
    )


def _told_apart(checkpoints: Sequence[Checkpoint], artifacts: Path) -> list[Checkpoint]:
    """Digest those that may be the same, and the newest, which tells a run from others and is evaluated."""
    newest = max(checkpoint.step for checkpoint in checkpoints)
    alike = Counter(checkpoint.sample for checkpoint in checkpoints)
    return [
        digested(one, artifacts) if one.step == newest or alike[one.sample] > 1 else one
        for one in checkpoints
    ]


def _is_registered(run: TrainingRun, artifacts: Path) -> bool:
    """Tell whether the merge in artifacts/ is one of this run's checkpoints, and became a model version."""
    try:
        merged = MergeReport.read(artifacts / "merged" / "merge.json")
        registration = Registration.read(artifacts / "registration" / "registration.json")
        taken = {(source.run, source.step) for source in merged.inputs}
        merged_of = [own for own in run.checkpoints if (own.run, own.step) in taken]
        own = {digested(checkpoint, artifacts).digest for checkpoint in merged_of}
    except BadInput:
        return False
    return registration.digest == merged.digest and {source.digest for source in merged.inputs} <= own
