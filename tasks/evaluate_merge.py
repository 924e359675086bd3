"""Stage evaluate: measure the merge beside the models it could replace, and judge it."""

import json
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from tasks.base.errors import BadInput
from tasks.base.fingerprint import fingerprint
from tasks.base.json_digest import digest_of
from tasks.base.model_files import ModelFiles, base_directory, published_model
from tasks.base.publish import is_intact, is_published, publishing
from tasks.base.records.evaluation import Evaluation
from tasks.base.records.merge import MergeReport
from tasks.base.records.model import AdapterBase
from tasks.base.records.score import EvaluatedModel
from tasks.base.records.search import SearchReport
from tasks.base.records.selection import Selection
from tasks.base.records.training_run import Checkpoint, TrainingRun
from tasks.engine.adapter_files import merge_adapters
from tasks.engine.adapters import AdapterPlan
from tasks.engine.chosen import shares_of_runs
from tasks.engine.model import write_models
from tasks.engine.planning import plan_average
from tasks.evaluation.measure import check_model, evaluate_model
from tasks.evaluation.progress import ItemsAnswered, OnAnswers, ignore_answers
from tasks.evaluation.results import TaskResult
from tasks.evaluation.splits import splits_of
from tasks.evaluation.task_files import check_tasks
from tasks.evaluation.task_spec import Split
from tasks.evaluation.training_data import trained_on
from tasks.parameters.evaluation import EvaluateParams
from tasks.parameters.registration import RegisterParams
from tasks.registry.reference import reference
from tasks.registry.store import connect
from tasks.registry.versions import champion, files_of, is_by_sha256
from tasks.reporting.deviation_figure import draw_deviation
from tasks.reporting.figures import draw_gains, draw_trajectory
from tasks.reporting.html_report import ReportRecords, html_report
from tasks.reporting.lore_figure import draw_lore
from tasks.reporting.lore_summary import summarise
from tasks.sources.as_before import merge_as_before
from tasks.sources.staging import staged, staged_model
from tasks.verdict.comparison import MERGE_ROLE, OF_RUN, ResultsByRole
from tasks.verdict.looking import LookLedger, judge_counted
from tasks.verdict.sentence import with_sentence

if TYPE_CHECKING:
    from mlflow import MlflowClient


class Contender(NamedTuple):
    """A model to evaluate; its files are looked up only when results are missing."""

    record: EvaluatedModel
    files: Callable[[], ModelFiles]


MakeAverage: TypeAlias = Callable[[Sequence[Checkpoint], Sequence[float] | None], ModelFiles]
"""Writes the average of checkpoints, by their weights."""


def evaluate_merge(
    params: EvaluateParams,
    registry: RegisterParams,
    artifacts: Path,
    on_answers: OnAnswers = ignore_answers,
) -> Evaluation:
    """Publish artifacts/evaluation: scores, paired differences, per-item results, figures, the verdict.

    The merge meets the last checkpoint, the best single one by the selection metric, of several runs each
    run's own average, the plain average (unless it is that) and the registry's champion. Raises BadInput for
    unknown tasks before any model loads.
    """
    splits = splits_of(params)
    selection = Selection.read(artifacts / "selection" / "selection.json")
    merge = MergeReport.read(artifacts / "merged" / "merge.json")
    client = connect(registry)
    own = _digests(client, registry, params, merge, artifacts)
    registered = _registered(client, registry, params, own, selection.last.base)
    published = artifacts / "evaluation"
    made_from = fingerprint(
        __name__,
        params,
        merge,
        selection,
        [split and split.items for split in splits],
        [contender.record for contender in registered],
    )
    if is_published(published, made_from):
        return Evaluation.read(published / "evaluation.json")
    if not is_intact(artifacts / "merged"):
        raise BadInput(artifacts / "merged", "changed since it was published", "run loreline merge again")
    with publishing(published, made_from) as out:
        contenders = [*registered, *_contenders(selection, merge, artifacts, scratch=out / "average")]
        measure = partial(_measure, contenders, on_answers)
        ledger = LookLedger(client, registry.name, selection.run)
        evaluation, results = judge_counted([c.record for c in contenders], splits, ledger, measure)
        shutil.rmtree(out / "average", ignore_errors=True)
        evaluation = _described(evaluation, results[MERGE_ROLE])
        evaluation = _warned(evaluation, sum(trained_on(splits.test, params.training_data).values()))
        _write(out, evaluation, results, TrainingRun.read(artifacts / "run" / "run.json"), selection, merge)
    return evaluation


def _described(evaluation: Evaluation, results: Mapping[str, TaskResult]) -> Evaluation:
    """Say which items were asked, and which way each metric is better."""
    known = {
        f"{name}/{metric}": higher
        for name, result in results.items()
        for metric, higher in result.higher_is_better.items()
    }
    return evaluation.model_copy(
        update={
            "items": {name: digest_of(list(result.items)) for name, result in results.items()},
            "higher_is_better": {
                score.metric: known[score.metric] for score in evaluation.scores if score.metric in known
            },
        }
    )


def _warned(evaluation: Evaluation, seen: int) -> Evaluation:
    """Say how many test items the run was trained on."""
    verdict = evaluation.verdict.model_copy(update={"trained_on": seen})
    return with_sentence(evaluation.model_copy(update={"verdict": verdict}))


def published_results(artifacts: Path) -> tuple[Evaluation, dict[str, dict[str, TaskResult]]]:
    """Return the evaluation that is there, with the results by item that it rests on."""
    evaluation = Evaluation.read(artifacts / "evaluation" / "evaluation.json")
    roles = [path for path in sorted((artifacts / "evaluation" / "items").iterdir()) if path.is_dir()]
    read = {role.name: map(TaskResult.read, sorted(role.glob("*.json"))) for role in roles}
    return evaluation, {role: {found.task: found for found in results} for role, results in read.items()}


def check_selection(params: EvaluateParams, artifacts: Path) -> None:
    """Raise BadInput, before the merge, where the checkpoints cannot be asked the evaluation's tasks."""
    last = Selection.read(artifacts / "selection" / "selection.json").last
    check_model(staged_model(last, artifacts), check_tasks(params), params)


def _digests(
    client: "MlflowClient",
    registry: RegisterParams,
    params: EvaluateParams,
    merge: MergeReport,
    artifacts: Path,
) -> list[str]:
    """Return the digests by which opponents may be the merge itself: older versions have another one."""
    opponents = champion(client, registry, [merge.digest]), reference(client, registry, params.reference)
    if any(version and is_by_sha256(version) for version in opponents):
        return [merge.digest, merge_as_before(merge, artifacts / "merged")]
    return [merge.digest]


def _registered(
    client: "MlflowClient",
    registry: RegisterParams,
    params: EvaluateParams,
    own: Sequence[str],
    base: AdapterBase | None,
) -> list[Contender]:
    """Return the registry's champion, and the reference, if it is another; `own`: digests of the merge."""
    reigning = champion(client, registry, challenger=own)
    fixed = reference(client, registry, params.reference)
    found = [] if reigning is None else [("champion", reigning)]
    if fixed and fixed.digest not in own and not (reigning and fixed.digest == reigning.digest):
        found.append(("reference", fixed))
    return [
        Contender(
            EvaluatedModel(role=role, label=f"{role} v{version.version}", digest=version.digest),
            partial(files_of, client, version, base),
        )
        for role, version in found
    ]


def _contenders(selection: Selection, merge: MergeReport, artifacts: Path, scratch: Path) -> list[Contender]:
    """Return the merge, and what it was made from, the strongest first."""
    last, best = selection.last, selection.best
    found = [("last", f"last ({last.name})", last)]
    if best is not None and best.digest == last.digest:
        found = [("last", f"last and best ({last.name})", last)]
    elif best is not None:
        found.insert(0, ("best", f"best ({best.name})", best))
    contenders = [
        Contender(
            EvaluatedModel(role=role, label=label, digest=checkpoint.digest),
            lambda checkpoint=checkpoint: staged_model(checkpoint, artifacts),  # type: ignore[misc]
        )
        for role, label, checkpoint in found
    ]
    searched = _searched(artifacts)
    chosen = _mergeable(selection.chosen, merge, searched)
    averaged = partial(_averaged, artifacts, scratch, last.base)
    contenders += _of_runs(chosen, {c.digest for c in (last, best) if c}, artifacts, averaged)
    if not _is_plain_average(merge, searched, chosen):
        label = f"average of {len(chosen)}"
        if runs := len(selection.plans):
            label += f" over {runs} runs"
        contenders.append(_average("average", label, chosen, averaged))
    merged = EvaluatedModel(role="merge", label=f"{merge.method} merge", digest=merge.digest)
    contenders.append(Contender(merged, lambda: published_model(artifacts / "merged")))
    if base := last.base:
        shown = EvaluatedModel(role="base", label=f"base ({base.address})", digest=base.digest)
        contenders.append(Contender(shown, lambda: ModelFiles(base_directory(base))))
    return contenders


def _mergeable(
    chosen: Sequence[Checkpoint], merge: MergeReport, searched: SearchReport | None
) -> Sequence[Checkpoint]:
    """Return the selection without what merge.on_nan has left out: nothing can be made of that."""
    taken = chosen[-searched.newest :] if searched and searched.newest else chosen
    dropped = {own.digest for own in taken} - {source.digest for source in merge.inputs}
    return [own for own in chosen if own.digest not in dropped]


def _of_runs(
    chosen: Sequence[Checkpoint], known: Collection[str], artifacts: Path, averaged: MakeAverage
) -> list[Contender]:
    """Return what could be had of each of several runs alone, but for what is `known` to take part."""
    runs = [(run, list(own)) for run, own in groupby(chosen, lambda checkpoint: checkpoint.run)]
    if len(runs) < 2:
        return []
    found = []
    for number, (run, own) in enumerate(runs, 1):
        role = f"{OF_RUN}{number}"
        if len(own) > 1:
            found.append(_average(role, f"average of {len(own)} ({run})", own, averaged))
        elif own[0].digest not in known:
            record = EvaluatedModel(role=role, label=own[0].name, digest=own[0].digest)
            found.append(Contender(record, partial(staged_model, own[0], artifacts)))
    return found


def _is_plain_average(
    merge: MergeReport, searched: SearchReport | None, chosen: Sequence[Checkpoint]
) -> bool:
    """Tell whether the merge is the plain average itself, which is not measured twice nor judged against."""
    if searched and searched.newest not in (0, len(chosen)):
        return False  # of some of the checkpoints only
    changed = {
        key
        for key, value in merge.parameters.items()
        if value not in (None, "uniform", _weights_of_runs(chosen))
    }
    return merge.method == "average" and not {"weights", "adapter_rank"} & changed


def _weights_of_runs(chosen: Sequence[Checkpoint]) -> list[float] | None:
    """Return the weights of a plain average that weighs several runs alike; None for one run."""
    shares = shares_of_runs(chosen)
    return [weight for run in shares for weight in run] if len(shares) > 1 else None


def _searched(artifacts: Path) -> SearchReport | None:
    place = artifacts / "search" / "search.json"
    return SearchReport.read(place) if place.exists() else None


def _average(role: str, label: str, chosen: Sequence[Checkpoint], averaged: MakeAverage) -> Contender:
    weights = _weights_of_runs(chosen)
    identity = ["average", *(checkpoint.digest for checkpoint in chosen), *([weights] if weights else [])]
    record = EvaluatedModel(role=role, label=label, digest=digest_of(identity))
    return Contender(record, partial(averaged, chosen, weights))


def _averaged(
    artifacts: Path,
    scratch: Path,
    on: AdapterBase | None,
    chosen: Sequence[Checkpoint],
    weights: Sequence[float] | None,
) -> ModelFiles:
    """Write an average in place of the one before, which has been measured."""
    directories = {checkpoint.name: staged(checkpoint, artifacts) for checkpoint in chosen}
    base = base_directory(on) if on else None
    plan = plan_average(directories, [checkpoint.step for checkpoint in chosen], base, weights)
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    if isinstance(plan, AdapterPlan):
        merge_adapters(plan, [scratch])
        return ModelFiles(scratch, base)
    write_models(plan, [scratch])
    return ModelFiles(scratch)


def _measure(
    contenders: Sequence[Contender], on_answers: OnAnswers, split: Split, roles: Collection[str]
) -> dict[str, dict[str, TaskResult]]:
    """MeasureSplit the contenders of these roles, the strongest opponents first, on a split."""
    asked = [contender for contender in contenders if contender.record.role in roles]
    return {
        contender.record.role: _evaluate(
            contender, split, ItemsAnswered(contender.record.label, number, len(asked)), on_answers
        )
        for number, contender in enumerate(asked, 1)
    }


def _evaluate(
    contender: Contender, split: Split, turn: ItemsAnswered, on_answers: OnAnswers
) -> dict[str, TaskResult]:
    on_answers(turn)
    return evaluate_model(
        contender.files,
        contender.record.digest,
        split.tasks,
        split.params,
        lambda done, total: on_answers(turn._replace(done=done, total=total)),
    )


def _write(
    out: Path,
    evaluation: Evaluation,
    results: ResultsByRole,
    run: TrainingRun,
    selection: Selection,
    merge: MergeReport,
) -> None:
    evaluation.write(out / "evaluation.json")
    (out / "metrics.json").write_text(json.dumps(_metrics(evaluation), indent=1) + "\n")
    for role, tasks in results.items():
        (out / "items" / role).mkdir(parents=True)
        for name, result in tasks.items():
            result.write(out / "items" / role / f"{name}.json")
    (out / "figures").mkdir()
    draw_trajectory(out / "figures" / "trajectory.png", run.checkpoints, selection)
    draw_gains(out / "figures" / "gains.png", evaluation)
    if merge.deviations:
        labels, has_base = [source.label for source in merge.inputs], "base" in merge.parameters
        draw_deviation(out / "figures" / "deviation.png", labels, merge.deviations, has_base)
    if (found := summarise(merge)) and found.matrices:
        draw_lore(out / "figures" / "lore.png", merge)
    report = html_report(ReportRecords(run, selection, merge, evaluation))
    (out / "report.html").write_text(report, encoding="utf-8")


def _metrics(evaluation: Evaluation) -> dict[str, object]:
    """Return what `dvc metrics` compares between revisions."""
    metrics: dict[str, dict[str, float]] = {}
    for score in evaluation.scores:
        metrics.setdefault(score.model, {})[score.metric] = score.value.mean
    return {"verdict": evaluation.verdict.decision, **metrics}
