"""Stage search: try merges on the select items, within a budget, and say which one is to be made."""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path

import numpy as np

from tasks.base.directories import state_dir
from tasks.base.errors import BadInput
from tasks.base.fingerprint import fingerprint
from tasks.base.json_digest import digest_of
from tasks.base.model_files import ModelFiles, base_directory
from tasks.base.publish import is_published, publishing
from tasks.base.records.search import SearchReport
from tasks.base.records.selection import Selection
from tasks.base.records.training_run import shares_of_runs
from tasks.engine.adapter_files import merge_adapters
from tasks.engine.adapters import AdapterPlan
from tasks.engine.calibration import CALIBRATION, wants_items, write_texts
from tasks.engine.chosen import merge_key, resolved
from tasks.engine.devices import cores
from tasks.engine.model import write_models
from tasks.engine.planning import plan_chosen
from tasks.evaluation.first_items import InTwo, in_two, of_both_parts
from tasks.evaluation.item_texts import item_texts
from tasks.evaluation.measure import OnItems, evaluate_model
from tasks.evaluation.progress import ItemsAnswered, OnAnswers, ignore_answers
from tasks.evaluation.results import TaskResult, full_name
from tasks.evaluation.splits import calibrating_split, searching_split
from tasks.evaluation.task_spec import Split
from tasks.parameters.evaluation import EvaluateParams
from tasks.parameters.merge import MergeParams
from tasks.parameters.search import SearchParams
from tasks.reporting.search_figure import draw_search
from tasks.search.candidate import Candidate, as_it_stands, plain_average
from tasks.search.on_devices import MeasureOne, MeasureSome, on_devices
from tasks.search.report import candidate_text, search_report
from tasks.search.samplers import proposals_of
from tasks.search.settings import check_space, is_read, merge_params
from tasks.search.surface import fitting
from tasks.search.trials import Losses, Measured, Tried, run_trials
from tasks.sources.staging import staged


def search_merge(
    params: SearchParams,
    merge: MergeParams,
    evaluate: EvaluateParams,
    artifacts: Path,
    on_answers: OnAnswers = ignore_answers,
) -> SearchReport:
    """Publish artifacts/search: the merge section that does best on the select items, and all that was tried.

    Without a budget it says that nothing was searched. The items' text lies there too where the
    method of `merge` measures checkpoints on it. Killed and run again, it evaluates nothing
    twice and finds the same. Raises BadInput where there is nothing to choose or measure on, and for
    parameters that do not fit.
    """
    selection = Selection.read(artifacts / "selection" / "selection.json")
    split = _checked(params, merge, evaluate, selection) if params.budget else None
    texts = item_texts(calibrating_split(evaluate, merge.method)) if wants_items(merge) else None
    published, key = artifacts / "search", merge_key(merge, selection.chosen)
    asked = params.model_copy(update={"storage": None, "devices": ()})  # where, not what
    made_from = fingerprint(
        __name__, asked, key, split and split.items, split and split.params.primary, texts
    )
    if is_published(published, made_from):
        return SearchReport.read(published / "search.json")
    with publishing(published, made_from) as out:
        report = SearchReport(made_for=key)
        if split:
            make = partial(_measuring, params, merge, evaluate, selection, artifacts)
            makers = [
                partial(make, out / f"candidate-{place}", device)
                for place, device in enumerate(params.devices or [evaluate.device])
            ]
            # named by the place too, which has one writer: two projects may search the same run
            log = state_dir() / "searches" / f"{digest_of([str(published.resolve()), made_from])[:16]}.log"
            with on_devices(makers, max(1, cores() // params.at_once)) as measure:
                tried, first = _search(params, merge, selection, measure, log, on_answers)
            section = merge_params(merge, tried.accepted.settings).model_dump(
                mode="json", exclude={"device"}, exclude_unset=True
            )
            report = search_report(key, section, params.sampler, tried, first, selection.chosen)
            draw_search(out / "search.png", report)
        if texts is not None:
            write_texts(texts, out / CALIBRATION)
        report.write(out / "search.json")
    return report


def _checked(
    params: SearchParams, merge: MergeParams, evaluate: EvaluateParams, selection: Selection
) -> Split:
    """Check what the search will ask for, before anything is evaluated."""
    split, count = searching_split(evaluate), len(selection.chosen)
    merge_params(merge, ())
    check_space(params, merge, count)
    if params.sampler == "surface":
        fitting(count, params.budget)
    runs = len(shares_of_runs(selection.chosen))
    if runs > 1 and params.sampler != "greedy":
        raise BadInput(
            "search.sampler",
            f"{params.sampler} searches within one run, and there are {runs}",
            "take greedy, which chooses among runs",
        )
    return split


def _search(
    params: SearchParams,
    merge: MergeParams,
    selection: Selection,
    measure: MeasureSome[Measured],
    log: Path,
    on_answers: OnAnswers,
) -> tuple[Tried, Measured]:
    begun, count = time.monotonic(), len(selection.chosen)
    known: list[Measured] = []

    def losses_of(candidates: Sequence[Candidate], best: Losses | None) -> list[Losses]:
        turns = [
            ItemsAnswered(candidate_text(selection.chosen, candidate), number, params.budget)
            for number, candidate in enumerate(candidates, len(known) + 1)
        ]
        for turn in turns:
            on_answers(turn)
        found = measure(
            candidates,
            best,
            lambda place, done, total: on_answers(turns[place]._replace(done=done, total=total)),
        )
        known.extend(found)
        return [measured.losses for measured in found]

    def enough() -> bool:
        return params.minutes is not None and time.monotonic() - begun > 60 * params.minutes

    shares = shares_of_runs(selection.chosen)
    parts = shares if len(shares) > 1 else [(1.0,)] * count
    proposals = proposals_of(params, partial(is_read, merge), parts, log)
    first = _first(merge, selection)
    return run_trials(proposals, first, params.budget, losses_of, params.at_once, enough), known[0]


def _first(merge: MergeParams, selection: Selection) -> Candidate:
    """Return what merge says of all that are selected, as the plain average where it is one."""
    count, said = len(selection.chosen), resolved(merge, selection.chosen)
    plain = resolved(MergeParams(method="average"), selection.chosen)
    return (
        plain_average(count)
        if (said.method, said.weights) == (plain.method, plain.weights)
        else as_it_stands(count)
    )


def _measuring(
    params: SearchParams,
    merge: MergeParams,
    evaluate: EvaluateParams,
    selection: Selection,
    artifacts: Path,
    scratch: Path,
    device: str,
) -> MeasureOne[Measured]:
    """Make what measures candidates on a device."""
    split = searching_split(evaluate.model_copy(update={"device": device}))
    # a surface is fitted through what all items say
    parts = in_two(split, params.first_items) if params.sampler != "surface" else None

    @cache
    def directories() -> list[Path]:
        return [staged(checkpoint, artifacts) for checkpoint in selection.chosen]

    return partial(_measure, merge, split, parts, selection, directories, scratch)


def _measure(
    merge: MergeParams,
    split: Split,
    parts: InTwo | None,
    selection: Selection,
    directories: Callable[[], list[Path]],
    scratch: Path,
    candidate: Candidate,
    best: Losses | None,
    on_items: OnItems,
) -> Measured:
    """Merge a candidate, ask it the select items, and remove it; what was asked before is read."""
    chosen = selection.chosen[-candidate.newest :]
    rates = selection.plan.rates if selection.plan else ()
    params = resolved(merge_params(merge, candidate.settings), chosen)

    @cache
    def made() -> ModelFiles:
        shutil.rmtree(scratch, ignore_errors=True)
        plan = plan_chosen(params, chosen, directories()[-candidate.newest :], rates)
        scratch.mkdir()
        if isinstance(plan, AdapterPlan):
            merge_adapters(plan, [scratch])
            return ModelFiles(scratch, base_directory(own) if (own := chosen[-1].base) else None)
        write_models(plan, [scratch])
        return ModelFiles(scratch)

    # The code that merges counts: another solver's merge is another model.
    model = fingerprint(
        __name__, params.model_copy(update={"device": "auto"}), rates, [c.digest for c in chosen]
    )

    def ask(part: Split) -> dict[str, TaskResult]:
        return evaluate_model(made, model, part.tasks, part.params, on_items)

    try:
        if parts is None:
            return _measured(split, ask(split))
        answers = ask(parts.first)
        first = _measured(split, answers)
        if best and best.first and first.losses.falls_behind(best.first):
            return first._replace(losses=first.losses._replace(dropped=True))
        whole = _measured(split, of_both_parts(split, answers, ask(parts.rest)))
        return whole._replace(losses=whole.losses._replace(first=first.losses))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _measured(split: Split, results: Mapping[str, TaskResult]) -> Measured:
    name = full_name(results, split.params.primary, "evaluate.primary")
    task, _, metric = name.partition("/")
    result = results[task]
    values, higher = np.asarray(result.values[metric], float), result.higher_is_better[metric]
    losses = Losses(-values if higher else values, result.clusters, result.weights)
    return Measured(name, higher, losses)
