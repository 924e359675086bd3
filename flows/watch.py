"""Finding training runs that have ended, and starting a merge for each."""

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

from prefect import flow, get_client
from prefect.exceptions import ObjectNotFound

from flows.progress import say
from tasks.base.directories import state_dir
from tasks.base.errors import BadInput, LorelineError, of_system
from tasks.jobs.identity import key_of
from tasks.jobs.ledger import Ledger
from tasks.parameters.params import PARAMS_FILE, Params, read_params
from tasks.registry.promotion import reconcile
from tasks.sources.addresses import observe, sources_in
from tasks.versioning.worktree import close_workspace

MERGE = "merge/merge"
"""The flow and the deployment that merge one training run."""


@flow(name="watch", flow_run_name="look around", persist_result=False, log_prints=True)
def watch() -> None:
    """Look at watch.roots, and start the deployment merge for each training run that has ended."""
    params = read_params(PARAMS_FILE)
    look_around(params, lambda source, digest: _start(source, key_of(digest, params)))


def look_around(params: Params, start: Callable[[str, str], object]) -> None:
    """Call `start` with address and digest of each run to merge.

    A failure does not stop the others; all are reported at the end by a LorelineError.
    """
    failed: list[str] = []
    for source, digest in _to_merge(params, failed):
        try:
            start(source, digest)
        except Exception as error:
            failed.append(f"{source}: {error}")
    try:
        _clean_up(params)
    except LorelineError as error:
        failed.append(str(error))
    if failed:
        raise LorelineError("watch", "; ".join(failed), "mend that; the next look tries again")


def _to_merge(params: Params, failed: list[str]) -> Iterator[tuple[str, str]]:
    """Yield address and digest of the runs that have ended and are not merged, refused or being merged.

    The others are named on stderr.
    """
    ledger = Ledger()
    for source in _sources(params, failed):
        try:
            seen = observe(source, params.watch.quiet_for, params.register_)
        except (LorelineError, OSError) as error:
            say(f"{source}: left alone: {_told(error)}")
            continue
        key = key_of(seen.digest, params)
        known = ledger.find(key)
        if not seen.ended:
            say(f"{source}: left alone: {seen.reason}")
        elif standing := ledger.standing(key):
            say(f"{source}: {standing.sentence}")
        elif known and known.state == "refused":
            say(f"{source}: was refused ({known.sentence}); mend that and run it by hand")
        else:
            say(f"{source}: has ended: {seen.reason}")
            yield source, seen.digest


def _sources(params: Params, failed: list[str]) -> list[str]:
    found: set[str] = set()
    for root in params.watch.roots:
        try:
            found.update(sources_in([root], Path.cwd(), params.register_))
        except (LorelineError, OSError) as error:
            failed.append(f"watch.roots: {_told(error)}")
    return sorted(found)


def _told(error: LorelineError | OSError) -> LorelineError:
    return of_system(error) if isinstance(error, OSError) else error


def _start(source: str, key: str) -> None:
    """Start a run of the merge deployment; `key`, the job's, makes overlapping calls start only one."""
    known = Ledger().find(key)
    with get_client(sync_client=True) as client:
        try:
            deployed = client.read_deployment_by_name(MERGE).id
        except ObjectNotFound:
            raise BadInput(
                MERGE, "there is no such deployment", "make it with loreline serve or prefect deploy --all"
            ) from None
        # Prefect returns the earlier run for a known key; one that has ended must not block the next attempt.
        for attempt in count(known.token if known else 0):
            started = client.create_flow_run_from_deployment(
                deployed, parameters={"run": source}, idempotency_key=f"{key}-{attempt}"
            )
            if started.state is None or not started.state.is_final():
                return


def _clean_up(params: Params) -> None:
    """Complete promotions that killed processes left, and remove workspaces whose work is done."""
    for mended in reconcile(params.register_):
        say(mended)
    done = {entry.key[:16] for entry in Ledger().entries() if entry.state == "merged" and entry.tag}
    places = state_dir() / "runs"
    for place in places.iterdir() if places.is_dir() else ():
        if place.name.partition("-")[0] in done:
            close_workspace(place, Path.cwd())
