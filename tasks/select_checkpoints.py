"""Stage select: choose checkpoints along the trajectory, and say why."""

import csv
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tasks.base.fingerprint import fingerprint
from tasks.base.publish import is_published, publishing
from tasks.base.records.selection import FarCheckpoint, RunPlan, Selection
from tasks.base.records.training_run import Checkpoint, TrainingRun
from tasks.parameters.selection import SelectParams
from tasks.sources.staging import digested, staged
from tasks.trajectory.far import FEWEST, find_far
from tasks.trajectory.learning_rate import Rate
from tasks.trajectory.plan import plan_run
from tasks.trajectory.plan_directory import plan_directory
from tasks.trajectory.selection import choose


def select_checkpoints(params: SelectParams, artifacts: Path) -> Selection:
    """Publish artifacts/selection: the checkpoints to merge, and the trajectory as CSV.

    Raises BadInput when fewer than two distinct checkpoints remain, saying what removed the others.
    """
    run = TrainingRun.read(artifacts / "run" / "run.json")
    published = artifacts / "selection"
    made_from = fingerprint(__name__, params, run)
    if is_published(published, made_from):
        return Selection.read(published / "selection.json")
    selection = _digested(choose(params, run, partial(_far, artifacts)), artifacts)
    with publishing(published, made_from) as scratch:
        selection.write(scratch / "selection.json")
        _write_trajectory(scratch / "trajectory.csv", run, selection)
    return selection


def _digested(selection: Selection, artifacts: Path) -> Selection:
    """Digest what is merged and evaluated; the other checkpoints of the run are known by their samples."""
    return selection.model_copy(
        update={
            "chosen": tuple(digested(checkpoint, artifacts) for checkpoint in selection.chosen),
            "best": digested(selection.best, artifacts) if selection.best else None,
            "last": digested(selection.last, artifacts),
        }
    )


def plan_of_run(params: SelectParams, artifacts: Path, directory: Path | None) -> dict[str, RunPlan]:
    """Plan a merge of a run's directory, else of what was fetched; nothing is evaluated or merged.

    Returns a plan for each run, by its name. Raises BadInput for a directory without checkpoints, and where
    nothing was fetched.
    """
    if directory is not None:
        return {directory.name: plan_directory(directory, params)}
    fetched = TrainingRun.read(artifacts / "run" / "run.json")
    return {run.name: _plan(params, artifacts, run) for run in fetched.runs}


def _plan(params: SelectParams, artifacts: Path, run: TrainingRun) -> RunPlan:
    far = _far(artifacts, run.checkpoints[-params.k :])
    return plan_run([c.step for c in run.checkpoints], [Rate(*rate) for rate in run.rates], params, far)


def _far(artifacts: Path, chosen: Sequence[Checkpoint]) -> list[FarCheckpoint]:
    if len(chosen) < FEWEST:
        return []
    return find_far([(checkpoint.step, staged(checkpoint, artifacts)) for checkpoint in chosen])


def _write_trajectory(path: Path, run: TrainingRun, selection: Selection) -> None:
    """Write one row per checkpoint: step, the selection metric, whether it is merged; of several, the run."""
    taken = {(checkpoint.run, checkpoint.step) for checkpoint in selection.chosen}
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["step", selection.metric, "selected", *(["run"] if run.several else [])])
        for c in run.checkpoints:
            metric, selected = c.metrics.get(selection.metric, ""), int((c.run, c.step) in taken)
            rows.writerow([c.step, metric, selected, *([c.run] if c.run else [])])
