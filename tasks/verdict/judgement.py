"""Judging a registered version again, against the present champion, on the items that the parameters name."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tasks.base.errors import BadInput
from tasks.base.records import EvaluatedModel, Evaluation, Verdict, digest_of
from tasks.evaluation.measure import evaluate_model, known_results
from tasks.evaluation.results import TaskResult
from tasks.evaluation.task_files import check_tasks
from tasks.evaluation.task_spec import TaskSpec
from tasks.parameters.evaluation import EvaluateParams
from tasks.parameters.params import Params
from tasks.parameters.registration import RegisterParams
from tasks.registry.alias_changes import TEXT_LIMIT
from tasks.registry.evidence import recorded_evaluation
from tasks.registry.store import connect, mlflow_errors
from tasks.registry.versions import CHALLENGER, CHAMPION, ModelVersion, aliases, files_of, version_of
from tasks.verdict.comparison import MERGE_ROLE
from tasks.verdict.gate import OPPONENTS, evaluate_results
from tasks.verdict.sentence import with_sentence

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION_ROLE = "champion"
AS_RECORDED = "This is the recorded verdict: there is nothing to weigh it against here."
Measured = dict[str, dict[str, TaskResult]]


class Judgement(NamedTuple):
    """A version compared with the present champion."""

    candidate: ModelVersion
    champion: ModelVersion | None
    evaluation: Evaluation
    items: str | None
    """Digest of the items that were compared; None when nothing was measured for this."""

    @property
    def reigns(self) -> bool:
        """Tell whether the candidate is champion already: there is nothing to decide."""
        return self.champion is not None and self.champion.version == self.candidate.version

    @property
    def decision(self) -> str:
        """Return the verdict's decision."""
        return self.evaluation.verdict.decision

    @property
    def sentence(self) -> str:
        """Return the verdict in words, or that the candidate is champion already."""
        if self.reigns:
            return f"models:/{self.candidate.name}/{self.candidate.version} is champion already"
        sentence = self.evaluation.verdict.sentence
        return f"{sentence} {AS_RECORDED}" if self.items is None else sentence

    @property
    def evidence(self) -> str:
        """Return the evidence as JSON, for the registry."""
        verdict = self.evaluation.verdict
        return json.dumps(
            {
                "verdict": verdict.decision,
                "sentence": self.sentence[:TEXT_LIMIT],
                "metric": verdict.primary,
                "against": verdict.against,
                "gain": self.evaluation.decisive.gain.model_dump(),
                "merge": self.candidate.digest,
                "champion": self.champion and self.champion.digest,
                "items": self.items,
            },
            ensure_ascii=False,
        )


def judge_again(params: Params, version: int | None = None) -> Judgement:
    """Judge a version (unset: the challenger) against the present champion and the models it was made from.

    Results on this machine are reused, and the two versions measured where results are missing. Checkpoints
    measured only elsewhere cannot be compared again: PROMOTE then also needs a recorded PROMOTE.
    Raises BadInput for unknown tasks, before any work, and for a version without a recorded evaluation.
    """
    specs = check_tasks(params.evaluate)
    client = connect(params.register_)
    with mlflow_errors(client.tracking_uri):
        candidate, champion = _parties(client, params.register_, version)
        recorded = recorded_evaluation(client, candidate)
    if champion is not None and champion.version == candidate.version:
        return Judgement(candidate, champion, recorded, None)
    known = _known(recorded, specs, params.evaluate)
    if champion is not None:
        known[CHAMPION_ROLE] = _measure(client, champion, specs, params.evaluate)
    if not known.keys() & set(OPPONENTS):
        return Judgement(candidate, champion, recorded, None)
    known[MERGE_ROLE] = _measure(client, candidate, specs, params.evaluate)
    models = [model for model in _models(recorded, champion) if model.role in known]
    results = {model.role: known[model.role] for model in models}
    evaluation = evaluate_results(models, results, params.evaluate)
    opponents = {*OPPONENTS, *(standing.against for standing in recorded.verdict.opponents)}
    absent = [m.label for m in recorded.models if m.role in opponents - {*known, CHAMPION_ROLE}]
    items = digest_of([(task, result.items) for task, result in known[MERGE_ROLE].items()])
    return Judgement(candidate, champion, _completed(evaluation, recorded.verdict, absent), items)


def _parties(
    client: "MlflowClient", params: RegisterParams, version: int | None
) -> tuple[ModelVersion, ModelVersion | None]:
    now = aliases(client, params.name)
    number, reigning = version or now.get(CHALLENGER), now.get(CHAMPION)
    if number is None:
        raise BadInput(params.name, f"no version has the alias {CHALLENGER}", "run loreline register first")
    return (
        version_of(client, params.name, number),
        None if reigning is None else version_of(client, params.name, reigning),
    )


def _known(recorded: Evaluation, specs: Sequence[TaskSpec], params: EvaluateParams) -> Measured:
    """Return this machine's results of the checkpoints and their average."""
    others = [model for model in recorded.models if model.role not in (MERGE_ROLE, CHAMPION_ROLE)]
    found = {model.role: known_results(model.digest, specs, params) for model in others}
    return {role: results for role, results in found.items() if results}


def _measure(
    client: "MlflowClient", version: ModelVersion, specs: Sequence[TaskSpec], params: EvaluateParams
) -> dict[str, TaskResult]:
    def locate() -> Path:
        with mlflow_errors(client.tracking_uri):
            return files_of(client, version)

    return evaluate_model(locate, version.digest, specs, params)


def _models(recorded: Evaluation, champion: ModelVersion | None) -> list[EvaluatedModel]:
    models = [model for model in recorded.models if model.role != CHAMPION_ROLE]
    if champion is not None:
        label = f"champion v{champion.version}"
        models.append(EvaluatedModel(role=CHAMPION_ROLE, label=label, digest=champion.digest))
    return models


def _completed(evaluation: Evaluation, recorded: Verdict, absent: Sequence[str]) -> Evaluation:
    """Apply the recorded verdict for checkpoints that have no results here: it may veto PROMOTE."""
    if not absent:
        return evaluation
    verdict = evaluation.verdict
    overruled = verdict.decision == "PROMOTE" and recorded.decision != "PROMOTE"
    found = verdict.model_copy(
        update={
            "decision": (recorded if overruled else verdict).decision,
            "not_measured": tuple(absent),
            "recorded": recorded.decision,
        }
    )
    return with_sentence(evaluation.model_copy(update={"verdict": found}))
