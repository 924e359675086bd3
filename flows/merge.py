"""The main flow of a training run: fetch → select → search → merge → evaluate → register → version."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL
from prefect.states import Completed

from flows.device_lock import device_lock
from flows.given_params import given_params
from flows.mark_crashed import mark_crashed
from flows.notifications import tell_moved
from flows.places import handed_over, in_roots
from flows.progress import answer_progress, say, tensor_progress
from flows.run_names import name_run, show_evaluation, with_sign
from flows.stages import stage
from flows.team_claim import claim_in_team
from flows.without_merge import runs_without_merge
from tasks.base.directories import ARTIFACTS, state_dir
from tasks.base.errors import BadInput, without_secrets
from tasks.base.records.evaluation import Evaluation
from tasks.base.records.registration import Registration
from tasks.base.records.training_run import TrainingRun
from tasks.evaluate_merge import check_selection, evaluate_merge
from tasks.evaluation.task_files import check_tasks
from tasks.fetch_run import fetch_run
from tasks.jobs.identity import identity_of, key_of, seen_as
from tasks.jobs.ledger import Claim, Ledger, LedgerEntry
from tasks.merge_checkpoints import merge_checkpoints
from tasks.parameters.params import Params
from tasks.promote_version import promote_if_auto
from tasks.register_model import register_model
from tasks.registry.store import place_of, uri_of
from tasks.registry.versions import GIT_TAG, is_versioned, version_of_run
from tasks.reporting.recorded_pages import record_pages
from tasks.search_merge import search_merge
from tasks.select_checkpoints import select_checkpoints
from tasks.sources.addresses import normal_address
from tasks.sources.as_before import as_before
from tasks.sources.several import observe_runs
from tasks.version_artifacts import Versioned, check_version, version_artifacts
from tasks.versioning.worktree import close_workspace, open_workspace

_look = stage(observe_runs, "look at {fetch.address}", network=True)
_claim = stage(claim_in_team, "claim {entry.source}", network=True)
_check = stage(check_tasks, "check the evaluation tasks")
_fetch = stage(fetch_run, "fetch {params.address}", network=True)
_known = stage(version_of_run, "look for the run in {params.name}", network=True)
_before = stage(as_before, "look for older versions in {registry.name}", network=True)
_select = stage(select_checkpoints, "select {params.rule}")
_search = stage(search_merge, "search by {params.sampler}")
_suits = stage(check_selection, "check the checkpoints for the evaluation")
_merge = stage(merge_checkpoints, "merge by {params.method}")
_evaluate = stage(evaluate_merge, "evaluate on {params.primary}", network=True)
_register = stage(register_model, "register as {params.name}", network=True)
_version = stage(version_artifacts, "version with DVC", network=True)
_promote = stage(promote_if_auto, "promote if {params.register_.promote}", network=True)


class Outcome(NamedTuple):
    """The results of a merged run."""

    artifacts: Path | None
    """None where the workspace is removed, and git, DVC and MLflow hold the results."""
    evaluation: Evaluation
    registration: Registration
    versioned: Versioned
    promotion: str | None


Ended = Outcome | LedgerEntry | State[Outcome | LedgerEntry | None] | None
"""Callers get an Outcome, or the entry that shows why there was nothing to do; Prefect shows the State."""


def _run_name() -> str:
    given = flow_run.parameters
    try:
        chosen = _chosen(given.get("run"), given.get("params"))
    except BadInput:  # the flow raises it as well; here it would be a crash without a reason
        return str(given.get("run") or "merge")
    return f"{chosen.register_.name} from {chosen.fetch.address}"


@flow(name="merge", flow_run_name=_run_name, persist_result=False)
def merge(
    run: str | None = None,
    params: Params | None = None,
    refresh: bool = False,
    host: str = "",
    project: str = "",
) -> Ended:
    """Merge a training run that has ended, judge the merge, register and version it.

    The work is done in a git worktree of its own. A run that was merged before, or is being merged, is named;
    without `params` a run that was merged with other parameters, too: what is registered is history.

    Args:
        run: A Trainer's output directory, or an address as fetch.source takes it; unset: fetch.source.
        params: What to do; unset: what params.yaml says.
        refresh: Look at the run anew, and do again what was done.
        host: The machine that announced the run, which merges it where its disk holds it; unset: nobody did.
        project: The project that the run was announced for; unset: the one that has it in watch.roots.
    """
    if host and run and (why := _not_here(_chosen(run, params), run, host, project)):
        return Completed(name="NothingToDo", message=why)
    by_itself, params = params is None and not refresh, _chosen(run, params)
    seen = _look(params.fetch, params.watch.quiet_for, params.register_).digest
    known = seen_as(seen, params)
    if by_itself and (before := Ledger().merged_before(known)):
        return _nothing_to_do(before)
    key = key_of(seen, params)
    claimed = Ledger().claim(key, params.fetch.address, str(flow_run.id), again=refresh, seen=known)
    if isinstance(claimed, LedgerEntry):
        return _nothing_to_do(claimed)
    root, place = Path.cwd(), state_dir() / "runs" / claimed.workspace
    with claimed as claim:
        mark_crashed(claim.predecessor)
        team = _claim(params.register_, known if by_itself else key, claim.entry)
        if isinstance(team, LedgerEntry):
            claim.withdraw()
            return _nothing_to_do(team)
        with team:
            artifacts = open_workspace(place, root, params) / ARTIFACTS
            fetched = _fetched(params, artifacts, refresh)
            older = None if refresh else _before(fetched, artifacts, params.register_)
            known_as = [fetched, *([older] if older else [])]
            done = (_merged_elsewhere(params, claim, known_as) if by_itself else None) or _work(
                params,
                claim,
                team.confirm,
                artifacts,
                [identity_of(run, params) for run in known_as],
                refresh,
            )
    if isinstance(done, Outcome) and not done.versioned.tag:
        return _completed(done)
    close_workspace(place, root)
    return (
        _nothing_to_do(done) if isinstance(done, LedgerEntry) else _completed(done._replace(artifacts=None))
    )


@flow(name="merge", flow_run_name=_run_name, persist_result=False)
def merge_in_place(params: Params, refresh: bool = False) -> Ended:
    """Do the same in artifacts/ of this checkout, as dvc repro does; what was merged before is done again.

    Args:
        params: What params.yaml says.
        refresh: Look at the run anew.
    """
    identity = identity_of(_fetched(params, ARTIFACTS, refresh), params)
    seen = seen_as(_look(params.fetch, params.watch.quiet_for, params.register_).digest, params)
    claimed = Ledger().claim(identity, params.fetch.address, str(flow_run.id), again=True, seen=seen)
    if isinstance(claimed, LedgerEntry):
        return _nothing_to_do(claimed)
    with claimed as claim:
        mark_crashed(claim.predecessor)
        team = _claim(params.register_, identity, claim.entry)
        if isinstance(team, LedgerEntry):
            claim.withdraw()
            return _nothing_to_do(team)
        with team:
            done = _work(params, claim, team.confirm, ARTIFACTS, [identity], again=True)
    return _nothing_to_do(done) if isinstance(done, LedgerEntry) else _completed(done)


def _not_here(params: Params, run: str, host: str, project: str) -> str | None:
    """Return why an announced run is not merged by this flow run."""
    if handed_over(params, run, host):
        return f"{run} lies on {host}, which merges it in a flow run of its own"
    if not project and not in_roots(params, run):
        return (
            f"{run} lies in no root of watch.roots; add it there, or export LORELINE_PROJECT where it trains"
        )
    return None


def _chosen(run: str | None, params: Params | None) -> Params:
    """Return the parameters; `run` takes the place of fetch.source."""
    params = given_params(params)
    if run is None:
        return params
    fetch = params.fetch.model_copy(update={"source": normal_address(run, Path.cwd())})
    return params.model_copy(update={"fetch": fetch})


def _fetched(params: Params, artifacts: Path, refresh: bool) -> TrainingRun:
    """Fetch the run, after checking what the later stages need."""
    _check(params.evaluate)
    check_version(params, Path.cwd())
    return _fetch(params.fetch, artifacts, refresh, params.register_, params.watch.quiet_for)


def _merged_elsewhere(params: Params, claim: Claim, known_as: Sequence[TrainingRun]) -> LedgerEntry | None:
    """Settle a run that the registry has a version of: by another machine, or of a ledger that was lost.

    `known_as`: the run as this release knows it, and as one before did. What was begun here is finished here,
    unless another machine took it over and finished it.
    """
    version = next(filter(None, (_known(params.register_, own.digest) for own in known_as)), None)
    if version is None or (claim.token > 1 and not is_versioned(version)):
        return None
    model = f"models:/{version.name}/{version.version}"
    sentence = (
        f"{model} in {place_of(uri_of(params.register_))} is of the same run; --refresh merges it again"
    )
    return claim.settle(
        "merged", sentence, identity_of(known_as[0], params), model, version.tags.get(GIT_TAG)
    )


def _work(
    params: Params,
    claim: Claim,
    confirm_team: Callable[[], None],
    artifacts: Path,
    identities: Sequence[str],
    again: bool,
) -> Outcome | LedgerEntry:
    """Run the stages after fetch; an earlier merge of the same checkpoints counts unless `again`.

    `identities`: that of the run, and the one that a release before gave it.
    """
    identity = identities[0]

    def confirm() -> None:
        claim.confirm()
        confirm_team()

    selection = _select(params.select, artifacts)
    for planned in selection.planned:
        say(f"select: {planned}")
    _suits(params.evaluate, artifacts)
    with device_lock(params):
        began = time.time()
        before = None if again else next(filter(None, map(Ledger().merged_as, identities)), None)
        if before:
            return claim.settle("merged", before.sentence, identity, before.version, before.tag)
        with answer_progress("search") as on_answers:
            _search(params.search, params.merge, params.evaluate, artifacts, on_answers)
        with tensor_progress() as on_progress:
            report = _merge(params.merge, artifacts, on_progress)
        for note in report.notes:
            say(f"merge: {note}")
        with answer_progress() as on_answers:
            evaluation = _evaluate(params.evaluate, params.register_, artifacts, on_answers)
    title = f"{params.register_.name} from {params.fetch.address}"
    show_evaluation("verdict", params.register_.name, title, evaluation.verdict.sentence, evaluation)
    say(evaluation.verdict.sentence)
    registration = _register(params.register_, artifacts, confirm, began)
    model = f"models:/{registration.name}/{registration.version}"
    place = place_of(uri_of(params.register_))  # the next run may name another registry
    say(f"registered as {model} in {place}")
    others = [other for other in runs_without_merge() if other.state != "merging"]
    record_pages(params.register_, registration, artifacts, others, _pages())
    versioned = _version(params, artifacts, identity, confirm)
    say(f"DVC: {versioned.sentence}")
    promotion = _promote(params, registration)
    if promotion:
        say(promotion.sentence)
        if promotion.moved:
            tell_moved(promotion.name, promotion.version, promotion.sentence)
    what = f"{registration.name} {registration.version} from {params.fetch.address}"
    name_run(f"{with_sign(evaluation.verdict.decision)}: {what}")
    sentence = f"{model} in {place}: {evaluation.verdict.sentence}"
    claim.settle("merged", sentence, identity, model, versioned.tag)
    return Outcome(artifacts, evaluation, registration, versioned, promotion.sentence if promotion else None)


def _pages() -> dict[str, str]:
    """Return the address of this flow run's page, where a server is named that people can open."""
    address = flow_run.ui_url if PREFECT_API_URL.value() else None
    return {"flow run": without_secrets(address)} if address else {}


def _completed(outcome: Outcome) -> State[Outcome | LedgerEntry | None]:
    return Completed(message=outcome.evaluation.verdict.sentence, data=outcome)


def _nothing_to_do(entry: LedgerEntry) -> State[Outcome | LedgerEntry | None]:
    """Return a completed state that names the earlier result, or the flow run at work."""
    at_work = f"{entry.source} {entry.sentence}, in flow run {entry.flow_run}"
    message = at_work if entry.state == "merging" else entry.sentence
    return Completed(name="NothingToDo", message=message, data=entry)
