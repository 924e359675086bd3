"""Stage merge: the selected checkpoints become one model directory; by hand, one or several."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

from tasks.base.digests import file_digests
from tasks.base.errors import BadInput
from tasks.base.fingerprint import fingerprint
from tasks.base.free_directory import check_free
from tasks.base.measures import TensorMeasures
from tasks.base.publish import is_published, tidy
from tasks.base.records.merge import CalibrationText, MergeReport
from tasks.base.records.record import FileDigest
from tasks.base.records.search import SearchReport
from tasks.base.records.selection import Selection
from tasks.base.records.training_run import Checkpoint
from tasks.checkpoints.layout import is_adapter, side_files
from tasks.checkpoints.models import open_models, own_base
from tasks.checkpoints.names import labels_of, step_of
from tasks.checkpoints.peft.adapter import read_adapter
from tasks.checkpoints.weights import WeightReader
from tasks.engine.adapter_files import merge_adapters
from tasks.engine.adapters import AdapterPlan
from tasks.engine.calibration import CALIBRATION, read_texts
from tasks.engine.chosen import merge_key, resolved
from tasks.engine.digesting import digesting, source_digest, source_digests
from tasks.engine.leaving import leave
from tasks.engine.model import write_models
from tasks.engine.plan import Plan
from tasks.engine.planning import narrowed, open_base, plan_chosen, plan_merges, with_variants
from tasks.engine.progress import OnProgress, untold
from tasks.engine.publish_merges import Job, Target, publish_merges
from tasks.parameters.merge import MergeParams
from tasks.parameters.reading import parse
from tasks.reporting.model_card import model_card
from tasks.sources.staging import rates_in, staged


def merge_checkpoints(params: MergeParams, artifacts: Path, on_progress: OnProgress = untold) -> MergeReport:
    """Publish artifacts/merged: a Hugging Face model directory with merge.json and a model card.

    Raises BadInput for checkpoints that cannot be merged, naming checkpoint and tensor.
    """
    selection = _selection(artifacts)
    given, chosen, searched = _searched(params, selection, artifacts)
    params = resolved(given, chosen)
    texts = read_texts(params, artifacts / "search" / CALIBRATION)
    base = open_base(params)
    of_base = source_digest(base) if base else None
    made_from = fingerprint(
        __name__, _decisive(params), chosen, of_base, _rates(selection), searched, CalibrationText.of(texts)
    )
    target = Target(artifacts / "merged", lambda: made_from, made_from)
    if not _is_done(target):
        inputs = [(checkpoint.source, checkpoint.step, checkpoint.run) for checkpoint in chosen]
        own = None if base else chosen[-1].base
        fewer = partial(_fewer, given, chosen)
        job = Job(inputs, lambda i: chosen[i].digest, [target], fewer, _write, model_card, own)
        plan = _plan(params, chosen, selection, artifacts)
        plan = replace(plan, notes=[*searched, *plan.notes], texts=texts)
        return publish_merges(plan, job, on_progress)[0]
    return _report(target)


def plan_selection(params: MergeParams, artifacts: Path) -> Plan:
    """Check everything about a merge of the selection that can be checked before any arithmetic."""
    selection = _selection(artifacts)
    params, chosen, _ = _searched(params, selection, artifacts)
    params = resolved(params, chosen)
    texts = read_texts(params, artifacts / "search" / CALIBRATION)
    return replace(_plan(params, chosen, selection, artifacts), texts=texts)


def merge_directories(
    params: MergeParams,
    directories: Sequence[Path],
    out: Path,
    on_progress: OnProgress = untold,
) -> MergeReport:
    """Merge model directories (oldest first) into `out`, outside any pipeline.

    Raises BadInput for inputs that cannot be merged, and for an `out` that is not free or an earlier merge.
    """
    return sweep_directories({out: params}, directories, on_progress)[out]


def sweep_directories(
    variants: Mapping[Path, MergeParams],
    directories: Sequence[Path],
    on_progress: OnProgress = untold,
) -> dict[Path, MergeReport]:
    """Merge model directories once for each output directory, as its parameters say, in one read.

    The parameters may differ in what their method reads. Raises BadInput as a single merge does.
    """
    plan = plan_directories(variants, directories)
    if not any(_is_there(out) for out in variants):  # else digests decide whether there is anything to do
        plan = digesting(plan)
    with ExitStack() as stack:
        hashing = ThreadPoolExecutor(len(plan.sources))
        stack.push(lambda kind, error, trace: leave(hashing, error))
        # Digests are taken while the merge runs: nothing waits for them but the manifest.
        digests = source_digests(plan, hashing)
        targets = [_target(plan, i, out, digests) for i, out in enumerate(variants)]
        todo = [i for i, target in enumerate(targets) if not _is_done(target)]
        found = {target.published: _report(target) for i, target in enumerate(targets) if i not in todo}
        if todo:
            inputs = [(str(directory), step_of(directory), "") for directory in directories]
            wanted = [targets[i] for i in todo]
            job = Job(inputs, lambda i: digests[i](), wanted, narrowed, _write, model_card)
            made = publish_merges(with_variants(plan, todo), job, on_progress)
            found |= {target.published: report for target, report in zip(wanted, made, strict=True)}
        return {out: found[out] for out in variants}


def plan_directories(variants: Mapping[Path, MergeParams], directories: Sequence[Path]) -> Plan:
    """Check everything that can be checked before any arithmetic; write nothing."""
    labels = labels_of(directories)
    resolved = [_on_named_base(params, directories) for params in variants.values()]
    params = resolved[0]
    for out in variants:
        check_free(out, [*directories, *([Path(params.base)] if params.base else [])], "merge.json")
    base = open_base(params)
    steps = [step_of(directory) for directory in directories]
    inputs = open_models(directories, labels, base)
    plan = plan_merges(resolved, inputs, base, steps, rates_in(directories[-1]) if directories else ())
    return replace(plan, texts=read_texts(params))


def _write(
    plan: Plan, directories: Sequence[Path], on_progress: OnProgress
) -> list[dict[str, TensorMeasures]]:
    if isinstance(plan, AdapterPlan):
        return merge_adapters(plan, directories, on_progress)
    return write_models(plan, directories, on_progress)


def _target(plan: Plan, variant: int, out: Path, digests: Sequence[Callable[[], str]]) -> Target:
    settings = plan.variants[variant]
    decisive = _decisive(settings.params)
    # configurations, tokenizers and templates are copied: one that was mended makes another merge
    beside = [file_digests(source.directory, side_files(source.directory)) for source in plan.inputs]
    return Target(
        out,
        partial(
            _made_from,
            decisive,
            (settings.steps, settings.rates),
            beside,
            CalibrationText.of(plan.texts),
            digests,
        ),
        fingerprint(
            __name__, decisive, [_identity(source) for source in plan.sources], CalibrationText.of(plan.texts)
        ),
    )


def _made_from(
    decisive: MergeParams,
    trajectory: tuple[Sequence[int], Sequence[tuple[int, float]]],
    beside: Sequence[tuple[FileDigest, ...]],
    texts: CalibrationText | None,
    digests: Sequence[Callable[[], str]],
) -> str:
    found = [digest() for digest in digests]
    return fingerprint(__name__, decisive, trajectory, found, beside, texts)


def _is_done(target: Target) -> bool:
    """Tell whether a merge is there already; if so remove scratch directories of killed processes."""
    # its origin has to wait for digests
    done = _is_there(target.published) and is_published(target.published, target.made_from())
    if done:
        tidy(target.published)
    return done


def _is_there(published: Path) -> bool:
    """Tell whether there is a merge, whatever it is of."""
    return (published.resolve() / "merge.json").is_file()  # before it is there, gone/../out leads nowhere


def _report(target: Target) -> MergeReport:
    return MergeReport.read(target.published.resolve() / "merge.json")


def _plan(params: MergeParams, chosen: Sequence[Checkpoint], selection: Selection, artifacts: Path) -> Plan:
    directories = [staged(checkpoint, artifacts) for checkpoint in chosen]
    return plan_chosen(params, chosen, directories, _rates(selection))


def _searched(
    params: MergeParams, selection: Selection, artifacts: Path
) -> tuple[MergeParams, Sequence[Checkpoint], Sequence[str]]:
    """Return what a search says is to be merged, and its sentence; without one, what the parameters say.

    Raises BadInput for a search of other checkpoints, or on other parameters.
    """
    place, chosen = artifacts / "search" / "search.json", selection.chosen
    if not place.exists() or not (found := SearchReport.read(place)).merge:
        return params, chosen, []
    if found.made_for != merge_key(params, chosen):
        raise BadInput(place, "is of other checkpoints or parameters", "run loreline search again")
    chosen = chosen[-found.newest :]
    params = parse(MergeParams, found.merge | {"device": params.device}, where=str(place), prefix="merge.")
    return params, chosen, [found.sentence]


def _fewer(params: MergeParams, chosen: Sequence[Checkpoint], plan: Plan, kept: Sequence[int]) -> Plan:
    """Plan the merge of some of those chosen, by their positions, as if the others had not been."""
    of_kept = replace(plan.variants[0], params=resolved(params, [chosen[i] for i in kept]))
    return narrowed(replace(plan, variants=[of_kept]), kept)


def _selection(artifacts: Path) -> Selection:
    return Selection.read(artifacts / "selection" / "selection.json")


def _rates(selection: Selection) -> tuple[tuple[int, float], ...]:
    return selection.plan.rates if selection.plan else ()


def _on_named_base(params: MergeParams, directories: Sequence[Path]) -> MergeParams:
    """Name the base that the newest adapter names where adapters become a full model."""
    adapters = [directory for directory in directories if is_adapter(directory)]
    if not params.full or params.base or not adapters:
        return params
    return params.model_copy(update={"base": str(own_base(read_adapter(adapters[-1], adapters[-1].name)))})


def _decisive(params: MergeParams) -> MergeParams:
    """Return the parameters that decide the bytes of the result."""
    return params.model_copy(update={"device": "auto"})


def _identity(source: WeightReader) -> list[tuple[str, int, int, int]]:
    """Tell files apart without reading them."""
    stats = [(str(path), path.stat()) for path in source.essential_files]
    return [(path, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns) for path, stat in stats]
