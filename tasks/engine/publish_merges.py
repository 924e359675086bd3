"""Publishing a planned merge: every variant as a complete directory, or none of them."""

import errno
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from tasks.base.digests import file_digests
from tasks.base.errors import BadInput, LorelineError, of_system
from tasks.base.fingerprint import fingerprint
from tasks.base.measures import TensorMeasures
from tasks.base.publish import publishing
from tasks.base.records.merge import CalibrationText, MergeInput, MergeReport
from tasks.base.records.model import AdapterBase
from tasks.checkpoints.duplicates import find_duplicates
from tasks.checkpoints.unchanged import check_unchanged, file_states
from tasks.checkpoints.weights import NotFinite
from tasks.engine.adapters import truncation_notes
from tasks.engine.plan import Plan
from tasks.engine.progress import OnProgress
from tasks.parameters.merge import MergeParams


class Target(NamedTuple):
    """The directory that a variant is published in."""

    published: Path
    made_from: Callable[[], str]
    resume: str
    """Identity of the work, by which a later process resumes what a killed one left."""


class Job(NamedTuple):
    """How a plan is carried out and published."""

    inputs: Sequence[tuple[str, int, str]]
    """Where the checkpoints came from, their steps, and their runs' names, where there are several."""
    digest: Callable[[int], str]
    """Position of a checkpoint → its digest; waits where it is still being computed."""
    targets: Sequence[Target]
    """One for each variant."""
    narrowed: Callable[[Plan, Sequence[int]], Plan]
    """Plans the merge of some of a plan's checkpoints, by their positions."""
    write: Callable[[Plan, Sequence[Path], OnProgress], list[dict[str, TensorMeasures]]]
    """Writes each variant into a directory; returns what was measured of each tensor, variant by variant."""
    card: Callable[[MergeReport], str]
    """The README.md that goes with a merge."""
    base: AdapterBase | None = None
    """The model that the merge is an adapter of, where that is known."""


def publish_merges(plan: Plan, job: Job, on_progress: OnProgress) -> list[MergeReport]:
    """Publish a merge, leaving out duplicates, and checkpoints with NaN or Inf if merge.on_nan is drop.

    Return what merge.json says of each variant, read before it is published: what everybody sees already must
    not fail to be told.

    Duplicates stay where every checkpoint has a weight or another parameter of its own.
    """
    whole, inputs = plan, plan.inputs
    duplicates = {} if plan.params.for_each else find_duplicates(inputs, job.digest)
    notes = [
        *plan.notes,
        *(
            f"{inputs[i].label} is left out: it is the same as {inputs[j].label}"
            for i, j in duplicates.items()
        ),
    ]
    kept = [i for i in range(len(inputs)) if i not in duplicates]
    # NaN is found only while reading, so a merge may begin again, with one checkpoint fewer each time.
    while True:
        if len(kept) < len(plan.inputs):
            try:
                plan = job.narrowed(whole, kept)
            except BadInput as error:
                raise BadInput("; ".join([*notes, error.subject]), error.problem, error.remedy) from None
        try:
            return _publish(plan, job, kept, notes, on_progress)
        except NotFinite as error:
            found = [i for i in kept if inputs[i].label == error.label]
            if plan.params.on_nan == "stop" or not found:
                raise
            kept.remove(found[0])
            notes.append(f"{error.label} is left out: tensor {error.tensor} holds NaN or Inf")


def _publish(
    plan: Plan, job: Job, kept: Sequence[int], notes: Sequence[str], on_progress: OnProgress
) -> list[MergeReport]:
    reports = []
    try:
        with ExitStack() as stack:
            scratches = _open(stack, job.targets, kept)
            _check_space(scratches, plan.bytes_written + plan.bytes_measured)
            read = file_states(path for source in plan.sources for path in source.essential_files)
            found = job.write(plan, scratches, on_progress)
            check_unchanged(read)
            inputs = tuple(
                MergeInput(path=path, step=step, digest=job.digest(i), run=run)
                for i in kept
                for path, step, run in [job.inputs[i]]
            )
            for settings, tensors, scratch in zip(plan.variants, found, scratches, strict=True):
                report = MergeReport(
                    method=settings.params.method,
                    parameters=_effective(settings.params, plan.method.sections),
                    inputs=inputs,
                    outputs=file_digests(scratch, scratch.iterdir()),
                    notes=(
                        *plan.method.findings(settings, tensors),
                        *truncation_notes(tensors, settings.params.adapter_rank),
                        *(note for note in plan.notes if note not in notes),
                        *notes,
                        *plan.method.notes(settings),
                    ),
                    tensors=tensors,
                    base=job.base,
                    calibration=CalibrationText.of(plan.texts),
                )
                report.write(scratch / "merge.json")
                (scratch / "README.md").write_text(job.card(report), encoding="utf-8")
                reports.append(MergeReport.read(scratch / "merge.json"))
        return reports
    except OSError as error:
        out = job.targets[0].published.resolve()
        place = out if out.is_dir() else out.parent  # a mount point is a disk of its own
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise LorelineError(
                place,
                "the disk is full",
                f"make room for {plan.bytes_written / 1e9:.1f} GB and run again",
            ) from None
        raise of_system(error, place) from None


def _open(stack: ExitStack, targets: Sequence[Target], kept: Sequence[int]) -> list[Path]:
    """Begin to publish every target, locking them in sorted order, so that two sweeps cannot deadlock."""
    scratches = {
        target: stack.enter_context(
            publishing(target.published, target.made_from, fingerprint(__name__, target.resume, kept))
        )
        for target in sorted(targets, key=lambda target: target.published.resolve())
    }
    return [scratches[target] for target in targets]


def _effective(params: MergeParams, sections: Sequence[str]) -> dict[str, object]:
    """Return the parameters that the method reads."""
    own = {"base", "adapter_rank", "dtype", "max_shard_size", *sections}
    return {key: v for key, v in params.model_dump(mode="json", include=own).items() if v is not None}


def _check_space(scratches: Sequence[Path], needed: int) -> None:
    # files left by a killed process are resumed or replaced: their space counts as free
    left = (path for scratch in scratches for path in scratch.iterdir())
    # blocks, not lengths: only allocated space can be used again
    free = shutil.disk_usage(scratches[0]).free + sum(path.stat().st_blocks * 512 for path in left)
    if free < needed:
        raise BadInput(
            scratches[0].absolute().parent,
            f"has {free / 1e9:.1f} GB free, this merge writes {needed / 1e9:.1f} GB",
            "make room",
        )
