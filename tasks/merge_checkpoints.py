"""Stage merge: the selected checkpoints become one model directory."""

import errno
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tasks.checkpoints.adapters import Adapter
from tasks.checkpoints.hashing import file_digests
from tasks.checkpoints.layout import labels_of, step_of
from tasks.checkpoints.models import open_models
from tasks.checkpoints.staging import staged
from tasks.checkpoints.twins import find_twins
from tasks.checkpoints.weights import NotFinite, Source, Weights, open_weights
from tasks.engine.adapter_files import merge_adapters
from tasks.engine.adapters import AdapterPlan, plan_adapters
from tasks.engine.execute import OnTensor
from tasks.engine.model import write_merge
from tasks.engine.plan import Plan, make_plan
from tasks.errors import BadInput, LorelineError
from tasks.fingerprint import fingerprint
from tasks.free_directory import check_free
from tasks.merge_params import MergeParams
from tasks.publish import is_published, publishing, tidy
from tasks.records import Checkpoint, MergeInput, MergeReport, Selection, model_digest
from tasks.reporting.model_card import model_card


class Job(NamedTuple):
    """What becomes of a plan."""

    inputs: Sequence[tuple[str, int]]
    """Where the checkpoints came from, and their steps."""
    digest: Callable[[int], str]
    """Position of a checkpoint → its digest, which may still be on the way."""
    published: Path
    made_from: Callable[[], str]
    resume: str
    """Identity of the work, for taking up what a killed process left."""


def merge_checkpoints(
    params: MergeParams, artifacts: Path, on_tensor: OnTensor = lambda name, done, total: None
) -> MergeReport:
    """Publish artifacts/merged: a Hugging Face model directory with merge.json and a model card.

    Raises BadInput for checkpoints that cannot be merged, naming checkpoint and tensor.
    """
    chosen = _chosen(artifacts)
    base = _open_base(params)
    made_from = fingerprint(__name__, _decisive(params), chosen, _digest(base) if base else None)
    published = artifacts / "merged"
    if is_published(published, made_from):
        tidy(published)
        return MergeReport.read(published / "merge.json")
    inputs = [(checkpoint.source, checkpoint.step) for checkpoint in chosen]
    job = Job(inputs, lambda i: chosen[i].digest, published, lambda: made_from, made_from)
    return _merge(plan_selection(params, artifacts), job, on_tensor)


def plan_selection(params: MergeParams, artifacts: Path) -> Plan:
    """Check everything about a merge of the selection that can be checked before any arithmetic."""
    chosen = _chosen(artifacts)
    sources = [open_weights(staged(checkpoint, artifacts), checkpoint.name) for checkpoint in chosen]
    return make_plan(params, sources, _open_base(params), [checkpoint.step for checkpoint in chosen])


def merge_directories(
    params: MergeParams,
    directories: Sequence[Path],
    out: Path,
    on_tensor: OnTensor = lambda name, done, total: None,
) -> MergeReport:
    """Merge model directories (oldest first) into `out`, outside any pipeline.

    Raises BadInput for inputs that cannot be merged, and for an `out` that is not free or an earlier merge.
    """
    plan = plan_directories(params, directories, out)
    with ThreadPoolExecutor(len(plan.sources)) as hashing:
        # Digests are taken while the merge runs: nothing waits for them but the manifest.
        digests = [hashing.submit(_digest, source) for source in plan.sources]
        if (out / "merge.json").is_file() and is_published(out, _made_from(plan, digests)):
            tidy(out)
            return MergeReport.read(out / "merge.json")
        job = Job(
            [(str(directory), step_of(directory)) for directory in directories],
            lambda i: digests[i].result(),
            out,
            lambda: _made_from(plan, digests),
            fingerprint(__name__, _decisive(params), [_identity(source) for source in plan.sources]),
        )
        return _merge(plan, job, on_tensor)


def plan_directories(params: MergeParams, directories: Sequence[Path], out: Path) -> Plan:
    """Check everything that can be checked before any arithmetic; write nothing."""
    labels = labels_of(directories)
    check_free(out, [*directories, *([Path(params.base)] if params.base else [])], "merge.json")
    base = _open_base(params)
    steps = [step_of(directory) for directory in directories]
    return _plan(params, open_models(directories, labels, base), base, steps)


def _plan(params: MergeParams, inputs: Sequence[Source], base: Source | None, steps: Sequence[int]) -> Plan:
    """Plan a merge into a model, or into an adapter where nothing but adapters is given."""
    adapters = [source for source in inputs if isinstance(source, Adapter)]
    return plan_adapters(params, adapters, steps) if adapters else make_plan(params, inputs, base, steps)


def _merge(plan: Plan, job: Job, on_tensor: OnTensor) -> MergeReport:
    """Publish a merge of each checkpoint once, without those with NaN or Inf if merge.on_nan is drop.

    Whoever gives every checkpoint its own weight may name one twice.
    """
    params, steps, inputs = plan.settings.params, plan.settings.steps, plan.inputs
    twins = find_twins(inputs, job.digest) if isinstance(params.weights, str) else {}
    notes = [f"{inputs[i].label} is left out: it is the same as {inputs[j].label}" for i, j in twins.items()]
    kept = [i for i in range(len(inputs)) if i not in twins]
    while True:
        if len(kept) < len(plan.inputs):
            try:
                plan = _plan(params, [inputs[i] for i in kept], plan.base, [steps[i] for i in kept])
            except BadInput as error:
                raise BadInput("; ".join([*notes, str(error)])) from None
        try:
            return _publish(plan, job, kept, notes, on_tensor)
        except NotFinite as error:
            found = [i for i in kept if inputs[i].label == error.label]
            if params.on_nan == "stop" or not found:
                raise
            kept.remove(found[0])
            notes.append(f"{error.label} is left out: tensor {error.tensor} holds NaN or Inf")


def _publish(
    plan: Plan, job: Job, kept: Sequence[int], notes: Sequence[str], on_tensor: OnTensor
) -> MergeReport:
    try:
        with publishing(job.published, job.made_from, fingerprint(__name__, job.resume, kept)) as scratch:
            _check_space(scratch, plan.bytes_written)
            facts = (
                merge_adapters(plan, scratch, on_tensor)
                if isinstance(plan, AdapterPlan)
                else write_merge(plan, scratch, on_tensor)
            )
            report = MergeReport(
                method=plan.settings.params.method,
                parameters=_effective(plan),
                inputs=tuple(
                    MergeInput(path=job.inputs[i][0], step=job.inputs[i][1], digest=job.digest(i))
                    for i in kept
                ),
                outputs=file_digests(scratch, scratch.iterdir()),
                notes=(*notes, *plan.method.notes(plan.settings)),
                tensors={name: dict(found) for name, found in facts.items()},
            )
            report.write(scratch / "merge.json")
            (scratch / "README.md").write_text(model_card(report), encoding="utf-8")
        return report
    except OSError as error:
        parent = job.published.absolute().parent
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise LorelineError(
                f"{parent}: the disk is full; make room for {plan.bytes_written / 1e9:.1f} GB and run again"
            ) from None
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG):
            raise LorelineError(
                f"{error.filename or parent}: {error.strerror}; write somewhere else, or lift the restriction"
            ) from None
        raise


def _check_space(scratch: Path, needed: int) -> None:
    taken = sum(path.stat().st_blocks * 512 for path in scratch.iterdir())  # by a process that was killed
    if (free := shutil.disk_usage(scratch).free + taken) < needed:
        parent = scratch.absolute().parent
        raise BadInput(
            f"{parent} has {free / 1e9:.1f} GB free, this merge writes {needed / 1e9:.1f} GB; make room"
        )


def _chosen(artifacts: Path) -> tuple[Checkpoint, ...]:
    return Selection.read(artifacts / "selection" / "selection.json").chosen


def _open_base(params: MergeParams) -> Weights | None:
    return open_weights(Path(params.base), f"base {params.base}") if params.base else None


def _decisive(params: MergeParams) -> MergeParams:
    """Return the parameters without those that change no byte of the result."""
    return params.model_copy(update={"device": "auto"})


def _effective(plan: Plan) -> dict[str, object]:
    """Return the parameters that this method reads."""
    params = plan.settings.params
    own = {"base", "dtype", "max_shard_size", *plan.method.sections}
    return {key: v for key, v in params.model_dump(mode="json", include=own).items() if v is not None}


def _made_from(plan: Plan, digests: Sequence[Future[str]]) -> str:
    found = [digest.result() for digest in digests]
    return fingerprint(__name__, _decisive(plan.settings.params), plan.settings.steps, found)


def _digest(source: Source) -> str:
    try:
        files = source.essential_files
        return model_digest(tuple(found for path in files for found in file_digests(path.parent, [path])))
    except (FileNotFoundError, BadInput):
        raise BadInput(
            f"{source.directory}: deleted while it was merged; keep a checkpoint until its merge is done"
        ) from None


def _identity(source: Source) -> list[tuple[str, int, int]]:
    """Tell files apart without reading them."""
    stats = [(str(path), path.stat()) for path in source.essential_files]
    return [(path, stat.st_ino, stat.st_mtime_ns) for path, stat in stats]
