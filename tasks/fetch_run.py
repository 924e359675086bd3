"""Stage fetch: record a finished training run's checkpoints and stage their files."""

import logging
from pathlib import Path

from tasks.base.errors import BadInput
from tasks.base.fingerprint import fingerprint
from tasks.base.publish import is_published, publishing
from tasks.base.records import TrainingRun
from tasks.checkpoints.names import numbered_checkpoints
from tasks.parameters.fetch import FetchParams
from tasks.parameters.registration import RegisterParams
from tasks.sources.addresses import source_of
from tasks.sources.base_model import find_base
from tasks.sources.staging import prune_staged, stage_checkpoint

log = logging.getLogger(__name__)


def fetch_run(
    params: FetchParams, artifacts: Path, refresh: bool = False, registry: RegisterParams = RegisterParams()
) -> TrainingRun:
    """Publish artifacts/run: the usable checkpoints of `params.source`, their files staged as hard links.

    A finished run does not change, so a published run is returned as it is unless `refresh`. `registry` says
    in which MLflow a run of MLflow is.
    Raises BadInput for a source without usable checkpoints or with a damaged one, and for adapters whose base
    is not on this machine; Unavailable for a network that does not answer.
    """
    published = artifacts / "run"
    made_from = fingerprint(__name__, params)
    if not refresh and is_published(published, made_from):
        return _as_fetched(TrainingRun.read(published / "run.json"))
    source = source_of(params.source)
    found = source.fetch(params, registry)
    if not found.checkpoints:
        reasons = "; ".join(f"{left.name} {left.reason}" for left in found.left_out)
        raise BadInput(
            "fetch.source",
            f"{params.source}: no usable checkpoint ({reasons})",
            "wait until one is whole, or raise fetch.wait",
        )
    base = find_base(params.base, [checkpoint.directory for checkpoint in found.checkpoints])
    run = TrainingRun(
        name=source.run_name(params.source),
        source=params.source,
        checkpoints=tuple(stage_checkpoint(checkpoint, artifacts, base) for checkpoint in found.checkpoints),
        left_out=tuple(found.left_out),
    )
    with publishing(published, made_from) as scratch:
        run.write(scratch / "run.json")
    prune_staged(artifacts, run.checkpoints)
    return run


def _as_fetched(run: TrainingRun) -> TrainingRun:
    """Return the run, with a warning when its directory has new checkpoints."""
    known = {left.name for left in run.left_out} | {checkpoint.name for checkpoint in run.checkpoints}
    directory = source_of(run.source).directory_of(run.source)
    there = numbered_checkpoints(directory) if directory and directory.is_dir() else []
    if new := [path.name for _, path in there if path.name not in known]:
        log.warning(
            "%s: %s and later were not there when it was fetched; --refresh looks again", run.source, new[0]
        )
    return run
