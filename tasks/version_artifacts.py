"""Stage version: a commit and a tag from which git and DVC restore a merged model byte for byte."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from tasks.base.digests import linking
from tasks.base.errors import BadInput, LorelineError, Unavailable
from tasks.base.records.evaluation import Evaluation
from tasks.base.records.merge import MergeReport
from tasks.base.records.record import Record
from tasks.base.records.registration import Registration
from tasks.base.records.training_run import TrainingRun
from tasks.parameters.params import Params, read_params
from tasks.parameters.registration import RegisterParams
from tasks.registry.history import earlier_runs
from tasks.registry.store import connect, mlflow_errors, store_lock
from tasks.registry.versions import GIT_REVISION, GIT_TAG, PUSH, version_of
from tasks.versioning.commit import (
    IDENTITY,
    MODEL,
    Message,
    changed_files,
    check_branch,
    commit_files,
    plain_tag,
    tag,
    tag_names,
)
from tasks.versioning.dvc import dvc, lacking_keys, needed_files, stages
from tasks.versioning.git import git_answer, unusable
from tasks.versioning.git_remote import catch_up, check_git_remote, share
from tasks.versioning.shared_cache import default_remote

COMMITTED = ("dvc.lock", "params.yaml")

Pushed = Literal["off", "done", "pending"]


class Versioned(Record):
    """The result of versioning in git and DVC."""

    sentence: str
    tag: str | None = None
    revision: str | None = None
    pushed: Pushed = "off"


def check_version(params: Params, root: Path) -> None:
    """Raise BadInput where the outputs of the coming run could not be versioned as `version` says."""
    if params.version.push and (root / ".dvc").is_dir() and default_remote(root) is None:
        raise BadInput(
            "version.push",
            "no DVC remote is set",
            "run dvc remote add --default NAME URL, or set it to false",
        )
    if unusable(root) is None:
        check_branch(root, params.version.branch)
        if params.version.push and params.version.git_remote:
            check_git_remote(root, params.version.git_remote)


def version_artifacts(
    params: Params, artifacts: Path, identity: str, confirm: Callable[[], None] = lambda: None
) -> Versioned:
    """Record the outputs in DVC, commit dvc.lock and params.yaml to `version.branch`, tag that, and push.

    `artifacts` lies in a workspace (tasks.versioning.worktree) or in the user's checkout, and was registered.
    The same identity again is the same commit and tag. `confirm` is asked before anything others see.
    Raises BadInput as check_version does, Unavailable when the registry or the remote does not answer.
    """
    workspace = artifacts.absolute().parent
    check_version(params, workspace)
    if reason := _unversioned(params, workspace):
        return Versioned(sentence=f"not versioned: {reason}")
    with linking(path for path in (artifacts / "merged").rglob("*") if path.is_file()):
        dvc(workspace, "commit", "--force", *stages(workspace))  # --quiet would silence its errors too
    if reason := _uncommitted(workspace):
        return Versioned(sentence=f"recorded in dvc.lock, not versioned: {reason}")
    registration = Registration.read(artifacts / "registration" / "registration.json")
    run = TrainingRun.read(artifacts / "run" / "run.json")
    files = {name: workspace / name for name in COMMITTED}
    known = _said(params.register_, registration)
    here, remote = _has(workspace, known.get(GIT_REVISION)), _git_remote(params, known)
    confirm()
    if remote:
        catch_up(workspace, params.version.branch, remote)
    elif known.get(GIT_REVISION) and not here:
        return Versioned(
            sentence=f"committed in another clone as {known[GIT_REVISION][:10]}, tagged {known.get(GIT_TAG)}",
            tag=known.get(GIT_TAG),
            revision=known[GIT_REVISION],
            pushed="done" if known.get(PUSH) == "done" else "off",
        )
    revision = commit_files(
        workspace, params.version.branch, files, _message(workspace, run, registration, identity)
    )
    names = _tag_names(params.register_, registration, run.name, revision, known)
    if remote:
        if known.get(GIT_REVISION, revision) == revision:
            _tell(params.register_, registration, {PUSH: "pending"}, confirm)
        name = share(workspace, params.version.branch, remote, revision, names)
    else:
        name = tag(workspace, names, revision)
    sentence = f"committed to {params.version.branch} as {revision[:10]}, tagged {name}"
    if name != (plain := f"merge/{run.name}"):
        sentence += f" ({plain} is another merge's tag, or no name that git accepts)"
    pushed = _publish(params, workspace, registration, {GIT_TAG: name, GIT_REVISION: revision}, confirm)
    if pushed == "done":
        places = [*filter(None, [params.version.git_remote]), "the DVC remote"]
        sentence += f", pushed to {' and '.join(places)}"
    return Versioned(sentence=sentence, tag=name, revision=revision, pushed=pushed)


def _git_remote(params: Params, known: Mapping[str, str]) -> str | None:
    """Return the git remote that the commit goes to; None once a version's push is complete."""
    return params.version.git_remote if params.version.push and known.get(PUSH) != "done" else None


def _has(workspace: Path, revision: str | None) -> bool:
    return bool(revision) and git_answer(workspace, "cat-file", "-e", f"{revision}^{{commit}}") is not None


def _tag_names(
    params: RegisterParams, registration: Registration, run: str, revision: str, known: Mapping[str, str]
) -> list[str]:
    """Return the names that a tag may have, first the one that the version was told."""
    told = [known[GIT_TAG]] if known.get(GIT_REVISION) == revision and GIT_TAG in known else []
    earlier = {plain_tag(name) for name in earlier_runs(params, registration.version)}
    return [*told, *tag_names(run, registration.version, revision, first=plain_tag(run) not in earlier)]


def _unversioned(params: Params, workspace: Path) -> str | None:
    """Return why DVC cannot record the outputs."""
    if not (workspace / "dvc.yaml").is_file() or not stages(workspace):
        return "no dvc.yaml with stages that write to artifacts/; run where Loreline's is"
    if not (workspace / ".dvc").is_dir():
        return "not a DVC repository; run dvc init"
    if lacking := lacking_keys(workspace):
        return f"params.yaml lacks {', '.join(lacking)}, which dvc.yaml names; write it with a value, or {{}}"
    if read_params(workspace / "params.yaml") != params:
        return "params.yaml was changed during the run; set it back and run again, or go on with the new one"
    return None


def _uncommitted(workspace: Path) -> str | None:
    """Return why the outputs could not be restored from a commit."""
    if reason := unusable(workspace):
        return str(reason)
    for name in ("dvc.yaml", ".dvc/config"):
        if git_answer(workspace, "cat-file", "-e", f"HEAD:./{name}") is None:
            return f"{name} is not committed to git; commit it"
    return None


def _message(workspace: Path, run: TrainingRun, registration: Registration, identity: str) -> Message:
    artifacts = workspace / "artifacts"
    verdict = Evaluation.read(artifacts / "evaluation" / "evaluation.json").verdict
    method = MergeReport.read(artifacts / "merged" / "merge.json").method
    changed = changed_files(workspace, ["dvc.yaml", *needed_files(workspace)])
    body = verdict.sentence
    if changed:
        body += f"\n\nRan with changes that are not committed: {', '.join(changed)}"
    return Message(
        subject=f"Merge {run.name} by {method}: {verdict.decision}",
        body=body,
        trailers={
            "Loreline-Run": run.name,
            IDENTITY: identity,
            MODEL: f"models:/{registration.name}/{registration.version}",
        },
    )


def _publish(
    params: Params,
    workspace: Path,
    registration: Registration,
    tags: dict[str, str],
    confirm: Callable[[], None],
) -> Pushed:
    """Record the commit in the model version, and push the data unless it is pushed already.

    A version keeps the first commit that it was told; of its push only how far it is changes.
    """
    known = _said(params.register_, registration)
    news = {key: value for key, value in tags.items() if key not in known}
    theirs = known.get(GIT_REVISION, tags[GIT_REVISION]) != tags[GIT_REVISION]
    stays = theirs or known.get(PUSH) == "done"
    if not params.version.push:
        _tell(params.register_, registration, news if stays else news | {PUSH: "off"}, confirm)
        return "off"
    if stays and not theirs:
        return "done"
    _tell(params.register_, registration, news if stays else news | {PUSH: "pending"}, confirm)
    try:
        dvc(workspace, "push", *stages(workspace))
    except LorelineError as error:
        raise Unavailable(
            error.subject,
            f"{error.problem}; everything is kept, as {tags[GIT_TAG]}, and the push is pending",
            "run the same command again when the remote answers",
        ) from None
    _tell(params.register_, registration, {} if stays else {PUSH: "done"}, confirm)
    return "done"


def _said(params: RegisterParams, registration: Registration) -> dict[str, str]:
    client = connect(params)
    with mlflow_errors(client.tracking_uri):
        return version_of(client, registration.name, registration.version).tags


def _tell(
    params: RegisterParams, registration: Registration, tags: dict[str, str], confirm: Callable[[], None]
) -> None:
    client = connect(params)
    with mlflow_errors(client.tracking_uri), store_lock(client.tracking_uri, registration.name):
        confirm()
        for key, value in tags.items():
            client.set_model_version_tag(registration.name, str(registration.version), key, value)
