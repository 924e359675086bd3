"""A promoted merge on the Hub: a pull request with its files, and its evidence in the model card."""

import logging
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tasks.base.directories import HUB, cache_dir
from tasks.base.errors import Unavailable
from tasks.base.held_lock import held_lock
from tasks.base.hub_client import endpoint, hub_errors, offline
from tasks.base.markdown import in_markdown
from tasks.base.publish import MANIFEST, Manifest
from tasks.base.records import Evaluation, MergeReport, digest_of
from tasks.parameters.registration import RegisterParams
from tasks.registry.evidence import recorded_evaluation
from tasks.registry.mlflow_model import is_mlflows
from tasks.registry.store import connect, mlflow_errors
from tasks.registry.versions import ModelVersion, files_of, version_of

log = logging.getLogger(__name__)

CARD = "README.md"
HUB_MODEL = re.compile(rf"{HUB}([^@/]+/[^@/]+)")


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
    if bases := _base_models(report):
        data.base_model = bases
    data.model_name = name
    data.eval_results = [
        EvalResult(
            task_type="text-generation",
            dataset_type=task,
            dataset_name=task,
            metric_type=metric,
            metric_name=f"{metric}, 95 % interval {score.value.low:.4g} to {score.value.high:.4g}, "
            f"{score.items} items",
            metric_value=score.value.mean,
        )
        for score in evaluation.scores
        if score.model == "merge"
        for task, _, metric in [score.metric.rpartition("/")]
    ]
    verdict = in_markdown(evaluation.verdict.sentence)
    return f"{str(shown).rstrip()}\n\n## Verdict\n\n{verdict}\n"


def _base_models(report: MergeReport) -> list[str]:
    """List the Hub's repositories among the base and the merged checkpoints."""
    addresses: Iterable[str] = [source.path for source in report.inputs]
    if report.base:
        addresses = [report.base.address]
    return sorted({match[1] for match in map(HUB_MODEL.match, addresses) if match})


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
