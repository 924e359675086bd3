"""Looking for training runs that have ended, and starting a flow run for each."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

from prefect import flow, get_client, get_run_logger
from prefect.runtime import deployment, flow_run

from flows.after_training import PARAMS, Outcome, after_training
from tasks.base.directories import state_dir
from tasks.base.errors import LorelineError
from tasks.jobs.identity import key_of
from tasks.jobs.ledger import Ledger, LedgerEntry
from tasks.parameters.params import Params, read_params
from tasks.registry.promotion import reconcile
from tasks.sources.addresses import normal_address, observe, sources_in
from tasks.versioning.worktree import close_workspace


def _run_name() -> str:
    return str(flow_run.parameters.get("run") or "look around")


@flow(name="watch", flow_run_name=_run_name, persist_result=False)
def watch(run: str | None = None) -> None:
    """Merge a training run that has ended; unset: look at watch.roots, and start this for each that has.

    Args:
        run: A Trainer's output directory, hf://org/name, or mlflow:/runs/RUN_ID/PATH.
    """
    params = read_params(PARAMS)
    if run:
        _merge(run, params)
    else:
        _look_around(params)


def _merge(source: str, params: Params) -> None:
    fetch = params.fetch.model_copy(update={"source": normal_address(source, Path.cwd())})
    outcome = after_training(params.model_copy(update={"fetch": fetch}))
    if isinstance(outcome, Outcome):
        get_run_logger().info("%s: %s", fetch.source, outcome.evaluation.verdict.sentence)
    elif isinstance(outcome, LedgerEntry):
        get_run_logger().info("%s: %s", fetch.source, outcome.sentence)


def _look_around(params: Params) -> None:
    """Start what is to be merged; what fails keeps nothing else waiting, and is told at the end."""
    failed: list[str] = []
    for source, digest in _to_merge(params, failed):
        try:
            _start(source, digest, params)
        except Exception as error:
            failed.append(f"{source}: {error}")
    try:
        _tidy(params)
    except LorelineError as error:
        failed.append(str(error))
    if failed:
        raise LorelineError("; ".join(failed))


def _to_merge(params: Params, failed: list[str]) -> Iterator[tuple[str, str]]:
    """Yield address and digest of the runs that have ended and are not merged, refused or being merged.

    The others are logged.
    """
    log, ledger = get_run_logger(), Ledger()
    for source in _sources(params, failed):
        try:
            seen = observe(source, params.watch.quiet_for, params.register_)
        except LorelineError as error:
            log.warning("%s: left alone: %s", source, error)
            continue
        key = key_of(seen.digest, params)
        known = ledger.find(key)
        if not seen.ended:
            log.info("%s: left alone: %s", source, seen.reason)
        elif standing := ledger.standing(key):
            log.info("%s: %s", source, standing.sentence)
        elif known and known.state == "refused":
            log.warning("%s: was refused (%s); mend that and run it by hand", source, known.sentence)
        else:
            log.info("%s: has ended: %s", source, seen.reason)
            yield source, seen.digest


def _sources(params: Params, failed: list[str]) -> list[str]:
    found: set[str] = set()
    for root in params.watch.roots:
        try:
            found.update(sources_in([root], Path.cwd(), params.register_))
        except LorelineError as error:
            failed.append(str(error))
    return sorted(found)


def _start(source: str, digest: str, params: Params) -> None:
    """Start a flow run of this deployment; by hand, without one, do it here."""
    if deployment.id is None:
        _merge(source, params)
        return
    key = key_of(digest, params)
    known = Ledger().find(key)
    with get_client(sync_client=True) as client:
        for attempt in count(known.token if known else 0):
            started = client.create_flow_run_from_deployment(
                deployment.id,
                parameters={"run": source},
                idempotency_key=f"{key}-{attempt}",  # of two looks that overlap, one starts it
            )
            if started.state is None or not started.state.is_final():
                return


def _tidy(params: Params) -> None:
    """Finish what killed processes left: promotions half made, and workspaces whose work is done."""
    for mended in reconcile(params.register_):
        get_run_logger().warning("%s", mended)
    done = {entry.key[:16] for entry in Ledger().entries() if entry.state == "merged" and entry.tag}
    places = state_dir() / "runs"
    for place in places.iterdir() if places.is_dir() else ():
        if place.name.partition("-")[0] in done:
            close_workspace(place, Path.cwd())
