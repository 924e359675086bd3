"""The main flow: after a training run, fetch → select → merge → evaluate → register → version."""

from pathlib import Path
from typing import NamedTuple

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed

from flows.device_lock import device_lock
from flows.mark_crashed import mark_crashed
from flows.progress import merging, say
from flows.stages import check, evaluate, fetch, look, merge, promote, register, select, version
from tasks.base.directories import state_dir
from tasks.base.records import Evaluation, Registration
from tasks.jobs.identity import identity_of, key_of
from tasks.jobs.ledger import Claim, Ledger, LedgerEntry
from tasks.parameters.params import Params, read_params
from tasks.registry.store import place_of, uri_of
from tasks.reporting.table import markdown_tables
from tasks.version_artifacts import Versioned, check_version
from tasks.versioning.worktree import close_workspace, open_workspace

PARAMS = Path("params.yaml")
ARTIFACTS = Path("artifacts")


class Outcome(NamedTuple):
    """What a merged run ends with."""

    artifacts: Path | None
    """None once they lie in git, DVC and MLflow alone."""
    evaluation: Evaluation
    registration: Registration
    versioned: Versioned
    promotion: str | None


def _run_name() -> str:
    params: Params | None = flow_run.parameters.get("params")
    return (params or read_params(PARAMS)).fetch.source


@flow(name="after-training", flow_run_name=_run_name, persist_result=False)
def after_training(
    params: Params | None = None, in_place: bool = False, refresh: bool = False
) -> Outcome | LedgerEntry | State[LedgerEntry]:
    """Merge a finished training run, judge the merge, register and version it.

    Args:
        params: What to do; unset: what params.yaml says.
        in_place: Work in artifacts/ of this checkout, as dvc repro does, instead of a git worktree.
        refresh: Look at the run anew, and do again what was done.
    """
    params = params or read_params(PARAMS)
    if in_place:
        key = identity_of(fetch(params.fetch, ARTIFACTS, refresh, params.register_), params)
    else:
        key = key_of(look(params.fetch.source, params.watch.quiet_for, params.register_).digest, params)
    claimed = Ledger().claim(key, params.fetch.source, str(flow_run.id), again=in_place or refresh)
    if isinstance(claimed, LedgerEntry):
        return _nothing_to_do(claimed)
    root, place = Path.cwd(), state_dir() / "runs" / claimed.workspace
    with claimed as claim:
        mark_crashed(claim.predecessor)
        artifacts = ARTIFACTS if in_place else open_workspace(place, root, params) / "artifacts"
        # In place it was fetched anew already.
        done = _work(params, claim, artifacts, refresh and not in_place, again=in_place or refresh)
    if not in_place and (isinstance(done, LedgerEntry) or done.versioned.tag):
        close_workspace(place, root)
        done = done if isinstance(done, LedgerEntry) else done._replace(artifacts=None)
    return _nothing_to_do(done) if isinstance(done, LedgerEntry) else done


def _work(params: Params, claim: Claim, artifacts: Path, refresh: bool, again: bool) -> Outcome | LedgerEntry:
    check(params.evaluate)
    check_version(params, Path.cwd())
    identity = identity_of(fetch(params.fetch, artifacts, refresh, params.register_), params)
    select(params.select, artifacts)
    with device_lock(params):
        before = None if again else Ledger().merged_as(identity)
        if before:  # the same checkpoints, found elsewhere
            return claim.settle("merged", before.sentence, identity, before.version, before.tag)
        with merging() as on_tensor:
            report = merge(params.merge, artifacts, on_tensor)
        for note in report.notes:
            say(f"merge: {note}")
        evaluation = evaluate(params.evaluate, params.register_, artifacts, _say_model)
    _show(evaluation)
    registration = register(params.register_, artifacts, claim.confirm)
    versioned = version(params, artifacts, identity, claim.confirm)
    promotion = promote(params, registration)
    model = f"models:/{registration.name}/{registration.version}"
    place = place_of(uri_of(params.register_))  # the next run may name another registry
    told = f"{model} in {place}: {evaluation.verdict.sentence}"
    claim.settle("merged", told, identity, model, versioned.tag)
    return Outcome(artifacts, evaluation, registration, versioned, promotion.sentence if promotion else None)


def _nothing_to_do(entry: LedgerEntry) -> State[LedgerEntry]:
    """End at once, naming what was done or who is at it."""
    at_work = f"{entry.source} {entry.sentence}, in flow run {entry.flow_run}"
    message = at_work if entry.state == "merging" else entry.sentence
    return Completed(name="NothingToDo", message=message, data=entry)


def _say_model(label: str) -> None:
    say(f"evaluate: {label}")


def _show(evaluation: Evaluation) -> None:
    create_markdown_artifact(
        markdown=f"**{evaluation.verdict.sentence}**\n\n{markdown_tables(evaluation)}\n",
        key="verdict",
        description="The merge beside the models it could replace",
    )
