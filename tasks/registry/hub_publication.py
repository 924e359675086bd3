"""A promoted merge on the Hub: a pull request with its files, and its evidence in the model card."""

import logging
from pathlib import Path
from typing import Any

from tasks.base.directories import cache_dir
from tasks.base.errors import LONGEST_SENTENCE, Unavailable
from tasks.base.held_lock import held_lock
from tasks.base.hub_address import HUB
from tasks.base.hub_client import endpoint, hub_errors, offline
from tasks.base.json_digest import digest_of
from tasks.base.markdown import in_markdown, interval_text, markdown_table
from tasks.base.publish import MANIFEST, Manifest
from tasks.base.records.evaluation import Evaluation
from tasks.base.records.merge import MergeReport
from tasks.parameters.registration import RegisterParams
from tasks.registry.evidence import recorded_evaluation
from tasks.registry.mlflow_model import is_mlflows
from tasks.registry.store import connect, mlflow_errors
from tasks.registry.versions import ModelVersion, files_of, version_of

log = logging.getLogger(__name__)

CARD = "README.md"


def publish_version(params: RegisterParams, repo: str, number: int) -> str:
    """Open a pull request in a Hub repository with a version's files, unless there is one; say where it is.

    A pull request that was merged or closed counts too: somebody has decided about it. Raises BadInput when
    the repository is not there or access is refused, Unavailable when the Hub does not answer.
    """
    client = connect(params)
    with mlflow_errors(client.tracking_uri):
        version = version_of(client, params.name, number)
        evaluation = recorded_evaluation(client, version)
        directory = files_of(client, version).directory
    if offline():
        raise Unavailable(f"{HUB}{repo}", "HF_HUB_OFFLINE is set", "unset it and promote again")
    lock = cache_dir() / "locks" / digest_of(["publish", repo, version.digest])
    work = f"the process that publishes {version.name} on the Hub"
    with held_lock(lock, work, log.warning), hub_errors(f"{HUB}{repo}"):
        return _pull_request(repo, version, evaluation, directory)


def hub_card(card: str, report: MergeReport, evaluation: Evaluation, name: str) -> str:
    """Return a merge's model card with what the Hub reads: base models, and the scores as a model-index."""
    from huggingface_hub import EvalResult, ModelCard

    shown = ModelCard(card)
    data: Any = shown.data  # what a card may say is not declared there
    if bases := report.hub_models:
        data.base_model = bases
    data.model_name = name
    data.eval_results = [
        EvalResult(
            task_type="text-generation",
            dataset_type=task,
            dataset_name=task,
            dataset_split="test",
            dataset_revision=evaluation.items.get(task),
            metric_type=metric,
            metric_name=f"{metric}, 95 % interval {score.value.low:.4g} to {score.value.high:.4g}, "
            f"{score.items} items",
            metric_value=score.value.mean,
        )
        for score in evaluation.scores
        if score.model == "merge"
        for task, _, metric in [score.metric.rpartition("/")]
    ]
    verdict = in_markdown(evaluation.verdict.sentence, LONGEST_SENTENCE)
    open_points = "\n".join(f"- {in_markdown(point)}" for point in not_shown(evaluation))
    return (
        f"{str(shown).rstrip()}\n\n## Verdict\n\n{verdict}\n\n{_table(evaluation)}\n\n"
        f"## What was not shown\n\n{open_points}\n"
    )


def not_shown(evaluation: Evaluation) -> list[str]:
    """Say what the evaluation leaves open: opponents, other metrics, other items, and the vault."""
    verdict = evaluation.verdict
    labels = {model.role: model.label for model in evaluation.models}
    items = sorted({score.items for score in evaluation.scores if score.metric == evaluation.primary})
    found = [
        f"That it is better than {labels[standing.against]}: {standing.rule.replace('_', ' ')}."
        for standing in verdict.opponents
        if standing.rule != "better"
    ]
    found += [
        f"That it holds on {metric.metric}, against {labels[guard.against]}, to within {metric.margin:.3g}."
        for guard in verdict.guards
        for metric in guard.metrics
        if not metric.held
    ]
    if verdict.beside_average:
        found.append("That it is better than the plain average of the same checkpoints.")
    if verdict.trained_on:
        found.append(f"Anything of {verdict.trained_on} test items that were among the training data.")
    if verdict.confirmation is None:
        found.append("A confirmation on items that no merge before was judged by.")
    asked = " or ".join(map(str, items))
    found.append(
        f"Anything beyond {asked} items of {evaluation.primary.rpartition('/')[0]}, and what is above."
    )
    return found


def _table(evaluation: Evaluation) -> str:
    """Show every model on every metric."""
    labels = {model.role: model.label for model in evaluation.models}
    rows = [[score.metric, labels[score.model], interval_text(score.value)] for score in evaluation.scores]
    return markdown_table(["metric", "model", "score"], [[in_markdown(cell) for cell in row] for row in rows])


def _pull_request(repo: str, version: ModelVersion, evaluation: Evaluation, directory: Path) -> str:
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi(endpoint=endpoint())
    title = f"{version.name} version {version.version} ({version.digest[:12]})"
    for found in api.get_repo_discussions(repo, discussion_type="pull_request"):
        if found.title == title:
            return f"on the Hub: {found.url} ({found.status})"
    report = MergeReport.read(directory / "merge.json")
    card = hub_card((directory / CARD).read_text(encoding="utf-8"), report, evaluation, version.name)
    names = [file.name for file in Manifest.read(directory / MANIFEST).files]
    operations = [
        CommitOperationAdd(name, str(directory / name))
        for name in names
        if name != CARD and not is_mlflows(name)
    ]
    # One request makes commit and pull request; it is not tried again, or there might be two.
    commit = api.create_commit(
        repo,
        [CommitOperationAdd(CARD, card.encode()), *operations],
        commit_message=title,
        commit_description=evaluation.verdict.sentence,
        create_pr=True,
    )
    return f"on the Hub: {commit.pr_url or f'{repo} holds these files already'}"
