"""Stage fetch: record a finished training run's checkpoints and stage their files."""

import logging
import shutil
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from tasks.base.digests import file_digests
from tasks.base.errors import BadInput
from tasks.base.fingerprint import fingerprint
from tasks.base.publish import is_published, publishing
from tasks.base.records import Checkpoint, LeftOut, TrainingRun
from tasks.checkpoints.layout import STATE, numbered_checkpoints
from tasks.parameters.fetch import FetchParams
from tasks.parameters.registration import RegisterParams
from tasks.sources.addresses import HUB, MLFLOW, checkpoints_in, name_of
from tasks.sources.hub_download import download_run
from tasks.sources.mlflow_download import download_mlflow_run
from tasks.sources.readiness import NotReady, check_model_files, check_ready, file_snapshot, logged_metrics
from tasks.sources.staging import STAGED, prune_staged, put_staged, stage_files

LOOK_AGAIN_S = 2.0

log = logging.getLogger(__name__)


class Candidate(NamedTuple):
    """A checkpoint that a source offers."""

    step: int
    name: str
    directory: Path
    source: str


def fetch_run(
    params: FetchParams, artifacts: Path, refresh: bool = False, registry: RegisterParams = RegisterParams()
) -> TrainingRun:
    """Publish artifacts/run: the usable checkpoints of `params.source`, their files staged as hard links.

    A finished run does not change, so a published run is returned as it is unless `refresh`. `registry` says
    in which MLflow an mlflow:/ source is.
    Raises BadInput for a source without usable checkpoints or with a damaged one, Unavailable for a network
    that does not answer.
    """
    published = artifacts / "run"
    made_from = fingerprint(__name__, params)
    if not refresh and is_published(published, made_from):
        return _as_fetched(TrainingRun.read(published / "run.json"))
    if params.source.startswith((HUB, MLFLOW)):
        ready, left_out = _ready_remotely(params.source, registry), list[LeftOut]()
    else:
        ready, left_out = _ready_locally(params)
    if not ready:
        reasons = "; ".join(f"{left.name} {left.reason}" for left in left_out)
        raise BadInput(f"fetch.source: {params.source}: no usable checkpoint ({reasons})")
    run = TrainingRun(
        name=name_of(params.source),
        source=params.source,
        checkpoints=tuple(_stage(candidate, artifacts) for candidate in ready),
        left_out=tuple(left_out),
    )
    with publishing(published, made_from) as scratch:
        run.write(scratch / "run.json")
    prune_staged(artifacts, run.checkpoints)
    return run


def _as_fetched(run: TrainingRun) -> TrainingRun:
    """Return the run, with a warning when its directory has got new checkpoints since."""
    known = {left.name for left in run.left_out} | {checkpoint.name for checkpoint in run.checkpoints}
    there = numbered_checkpoints(Path(run.source)) if Path(run.source).is_dir() else []
    if new := [path.name for _, path in there if path.name not in known]:
        log.warning(
            "%s: %s and later were not there when it was fetched; --refresh looks again", run.source, new[0]
        )
    return run


def _ready_remotely(source: str, registry: RegisterParams) -> list[Candidate]:
    """Take every checkpoint of the run; those that bring a trainer_state.json have to match it."""
    remote = download_run(source) if source.startswith(HUB) else download_mlflow_run(source, registry)
    ready = [Candidate(*checkpoint) for checkpoint in remote]
    for candidate in ready:
        check_model_files(candidate.directory)
        if (candidate.directory / STATE).exists():
            try:
                check_ready(candidate.directory, candidate.step)
            except NotReady as reason:
                raise BadInput(f"{candidate.source}: {reason}; its upload is incomplete") from None
    return ready


def _ready_locally(params: FetchParams) -> tuple[list[Candidate], list[LeftOut]]:
    """Look until every checkpoint is ready and still, or `params.wait` seconds have passed."""
    deadline = time.monotonic() + params.wait
    while True:
        ready, left_out = _look_twice(params)
        if not left_out or time.monotonic() >= deadline:
            return ready, left_out
        time.sleep(min(LOOK_AGAIN_S, max(deadline - time.monotonic(), 0)))


def _look_twice(params: FetchParams) -> tuple[list[Candidate], list[LeftOut]]:
    candidates = _local_candidates(params.source)
    before = [file_snapshot(candidate.directory) for candidate in candidates]
    time.sleep(params.settle)
    ready, left_out = [], []
    for candidate, seen in zip(candidates, before, strict=True):
        try:
            if file_snapshot(candidate.directory) != seen:
                raise NotReady("is still changing")
            check_ready(candidate.directory, candidate.step)
            ready.append(candidate)
        except NotReady as reason:
            left_out.append(LeftOut(name=candidate.name, reason=str(reason)))
    return ready, left_out


def _local_candidates(source: str) -> list[Candidate]:
    return [
        Candidate(step, path.name, path, f"{source.rstrip('/')}/{path.name}")
        for step, path in checkpoints_in(source)
    ]


def _stage(candidate: Candidate, artifacts: Path) -> Checkpoint:
    """Link the files first and digest the links: the training directory may rotate at any time."""
    (artifacts / STAGED).mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=artifacts / STAGED))
    try:
        linked = scratch / "linked"
        stage_files(candidate.directory, linked)
        checkpoint = Checkpoint(
            name=candidate.name,
            step=candidate.step,
            source=candidate.source,
            metrics=logged_metrics(linked, candidate.step),
            files=file_digests(linked, linked.iterdir()),
        )
        put_staged(linked, checkpoint, artifacts)
    finally:
        shutil.rmtree(scratch)
    return checkpoint
