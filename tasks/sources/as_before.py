"""A run as releases knew it that digested every checkpoint by SHA-256: what they merged is found again."""

from pathlib import Path

from tasks.base.digests import sha256_digests
from tasks.base.model_files import base_directory
from tasks.base.records.merge import MergeReport
from tasks.base.records.model import AdapterBase
from tasks.base.records.training_run import Checkpoint, TrainingRun
from tasks.parameters.registration import RegisterParams
from tasks.registry.history import newest_inputs_by_sha256
from tasks.sources.staging import staged


def as_before(run: TrainingRun, artifacts: Path, registry: RegisterParams) -> TrainingRun | None:
    """Return a run with all its SHA-256 digests, where a version of such a release may be of it, else None.

    One checkpoint is read to tell whether a version is of it, and the others only if it is. Raises
    Unavailable when MLflow does not answer, BadInput as `staged` does.
    """
    inputs = newest_inputs_by_sha256(registry)
    steps = {step for step, _ in inputs}
    own = (*run.checkpoints, *run.means)
    if not any((one.step, _by_sha256(one, artifacts).digest) in inputs for one in own if one.step in steps):
        return None
    return run.model_copy(
        update={
            key: tuple(_by_sha256(one, artifacts) for one in group)
            for key, group in (("checkpoints", run.checkpoints), ("means", run.means))
        }
    )


def merge_as_before(report: MergeReport, directory: Path) -> str:
    """Return the digest that a merge has in a version of such a release. Raises BadInput as `staged` does."""
    outputs = sha256_digests(directory, [directory / file.name for file in report.outputs])
    base = report.base and _base_by_sha256(report.base)
    return report.model_copy(update={"outputs": outputs, "base": base}).digest


def _by_sha256(checkpoint: Checkpoint, artifacts: Path) -> Checkpoint:
    directory = staged(checkpoint, artifacts)
    base = checkpoint.base and _base_by_sha256(checkpoint.base)
    files = sha256_digests(directory, directory.iterdir())
    return checkpoint.model_copy(update={"files": files, "base": base, "sample": ""})


def _base_by_sha256(base: AdapterBase) -> AdapterBase:
    directory = base_directory(base)
    paths = [directory / file.name for file in base.files]
    return base.model_copy(update={"files": sha256_digests(directory, paths)})
