"""Judging a registered version again, against the present champion, on the items that the parameters name."""

import json
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from tasks.base.errors import BadInput
from tasks.base.json_digest import digest_of
from tasks.base.model_files import ModelFiles
from tasks.base.records.evaluation import Evaluation
from tasks.base.records.score import EvaluatedModel
from tasks.base.records.verdict import Verdict
from tasks.evaluation.measure import evaluate_model, known_results
from tasks.evaluation.splits import splits_of
from tasks.evaluation.task_spec import Split
from tasks.parameters.params import Params
from tasks.parameters.registration import RegisterParams
from tasks.registry.alias_changes import TEXT_LIMIT
from tasks.registry.evidence import recorded_evaluation
from tasks.registry.reference import reference
from tasks.registry.store import connect, mlflow_errors
from tasks.registry.versions import CHALLENGER, CHAMPION, ModelVersion, aliases, files_of, version_of
from tasks.verdict.comparison import MERGE_ROLE, OPPONENTS, ResultsByRole
from tasks.verdict.guards import REFERENCE
from tasks.verdict.looking import LookLedger, judge_counted
from tasks.verdict.sentence import with_sentence

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION_ROLE = "champion"
AS_RECORDED = "This is the recorded verdict: there is nothing to weigh it against here."


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
    splits = splits_of(params.evaluate)._replace(select=None)  # it was chosen when it was registered
    client = connect(params.register_)
    with mlflow_errors(client.tracking_uri):
        candidate, champion = _parties(client, params.register_, version)
        recorded = recorded_evaluation(client, candidate)
        fixed = reference(client, params.register_, params.evaluate.reference)
    if champion is not None and champion.version == candidate.version:
        return Judgement(candidate, champion, recorded, None)
    registered = _registered(candidate, champion, fixed)
    models = _models(recorded, registered)
    measure = partial(_measure, client, models, registered)
    if champion is None and not _known(models, splits.test).keys() & set(OPPONENTS):
        return Judgement(candidate, champion, recorded, None)
    ledger = LookLedger(client, candidate.name, candidate.tags.get("loreline.run", candidate.name))
    evaluation, results = judge_counted(models, splits, ledger, measure)
    opponents = {*OPPONENTS, *(standing.against for standing in recorded.verdict.opponents)}
    absent = [m.label for m in recorded.models if m.role in opponents - {*results, CHAMPION_ROLE}]
    verdict = evaluation.verdict
    if splits.vault and verdict.decision == "PROMOTE" and verdict.confirmation is None:
        absent.append("the vault's items")
    items = digest_of([(task, result.items) for task, result in results[MERGE_ROLE].items()])
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


def _registered(
    candidate: ModelVersion, champion: ModelVersion | None, fixed: ModelVersion | None
) -> dict[str, ModelVersion]:
    """Return the versions that take part, by role; their files are in the registry."""
    found = {MERGE_ROLE: candidate}
    if champion is not None:
        found[CHAMPION_ROLE] = champion
    if fixed is not None and fixed.digest not in [version.digest for version in found.values()]:
        found[REFERENCE] = fixed
    return found


def _models(recorded: Evaluation, registered: Mapping[str, ModelVersion]) -> list[EvaluatedModel]:
    """Return the champion and the reference of now, then what took part when it was recorded."""
    now = [
        EvaluatedModel(role=role, label=f"{role} v{version.version}", digest=version.digest)
        for role, version in registered.items()
        if role != MERGE_ROLE
    ]
    return now + [model for model in recorded.models if model.role not in (CHAMPION_ROLE, REFERENCE)]


def _known(models: Sequence[EvaluatedModel], split: Split) -> ResultsByRole:
    """Return this machine's results on a split; checkpoints may be gone, and were measured elsewhere."""
    found = {model.role: known_results(model.digest, split.tasks, split.params) for model in models}
    return {role: results for role, results in found.items() if results}


def _measure(
    client: "MlflowClient",
    models: Sequence[EvaluatedModel],
    registered: Mapping[str, ModelVersion],
    split: Split,
    roles: Collection[str],
) -> ResultsByRole:
    """MeasureSplit the registered versions, and return what is known of the other models."""
    asked = [model for model in models if model.role in roles]
    measured = {
        model.role: evaluate_model(
            partial(_located, client, registered[model.role]), model.digest, split.tasks, split.params
        )
        for model in asked
        if model.role in registered
    }
    return {**_known([model for model in asked if model.role not in registered], split), **measured}


def _located(client: "MlflowClient", version: ModelVersion) -> ModelFiles:
    with mlflow_errors(client.tracking_uri):
        return files_of(client, version)


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
