"""Stage evaluate: measure the merge beside the models it could replace, and judge it."""

import json
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

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
from tasks.reporting.evaluation_report import write_report
from tasks.reporting.html_report import ReportRecords
from tasks.sources.as_before import merge_as_before
from tasks.sources.staging import staged, staged_model
from tasks.verdict.alternatives import Alternative, alternatives
from tasks.verdict.comparison import MERGE_ROLE, ResultsByRole
from tasks.verdict.looking import LookLedger, judge_counted
from tasks.verdict.sentence import with_sentence

if TYPE_CHECKING:
    from mlflow import MlflowClient


class Contender(NamedTuple):
    """A model to evaluate; its files are looked up only when results are missing."""

    record: EvaluatedModel
    files: Callable[[], ModelFiles]


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
        run = TrainingRun.read(artifacts / "run" / "run.json")
        _write(out, ReportRecords(run, selection, merge, evaluation), results)
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
    """Return what could be had without the merge, the strongest first, the merge, and its base."""
    base = selection.last.base
    contenders = [
        Contender(other.record, partial(_files, artifacts, scratch, base, other))
        for other in alternatives(selection, merge, _searched(artifacts))
    ]
    merged = EvaluatedModel(role="merge", label=f"{merge.method} merge", digest=merge.digest)
    contenders.append(Contender(merged, lambda: published_model(artifacts / "merged")))
    if base:
        shown = EvaluatedModel(role="base", label=f"base ({base.address})", digest=base.digest)
        contenders.append(Contender(shown, lambda: ModelFiles(base_directory(base))))
    return contenders


def _searched(artifacts: Path) -> SearchReport | None:
    place = artifacts / "search" / "search.json"
    return SearchReport.read(place) if place.exists() else None


def _files(artifacts: Path, scratch: Path, on: AdapterBase | None, other: Alternative) -> ModelFiles:
    """Return a checkpoint's files, or write an average over the one before, which has been measured."""
    if isinstance(other.made_of, Checkpoint):
        return staged_model(other.made_of, artifacts)
    directories = {checkpoint.name: staged(checkpoint, artifacts) for checkpoint in other.made_of}
    base = base_directory(on) if on else None
    plan = plan_average(directories, [checkpoint.step for checkpoint in other.made_of], base, other.weights)
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


def _write(out: Path, records: ReportRecords, results: ResultsByRole) -> None:
    evaluation = records.evaluation
    evaluation.write(out / "evaluation.json")
    (out / "metrics.json").write_text(json.dumps(_metrics(evaluation), indent=1) + "\n")
    for role, tasks in results.items():
        (out / "items" / role).mkdir(parents=True)
        for name, result in tasks.items():
            result.write(out / "items" / role / f"{name}.json")
    write_report(out, records)


def _metrics(evaluation: Evaluation) -> dict[str, object]:
    """Return what `dvc metrics` compares between revisions."""
    metrics: dict[str, dict[str, float]] = {}
    for score in evaluation.scores:
        metrics.setdefault(score.model, {})[score.metric] = score.value.mean
    return {"verdict": evaluation.verdict.decision, **metrics}
