"""Finding training runs that have ended, and starting a merge for each."""

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from uuid import UUID

from prefect import flow, get_client
from prefect.client.schemas.objects import State
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run
from prefect.states import Completed

from flows.places import MERGE, place_for
from flows.progress import say
from tasks.base.directories import state_dir
from tasks.base.errors import BadInput, LorelineError, of_system
from tasks.jobs.identity import key_of, seen_as
from tasks.jobs.ledger import Ledger
from tasks.parameters.params import Params, params_file, read_params
from tasks.registry.promotion import reconcile
from tasks.sources.addresses import observe, sources_in
from tasks.versioning.worktree import close_workspace


@flow(name="watch", flow_run_name="look around", persist_result=False)
def watch(refresh: bool = False) -> State[None] | None:
    """Look at watch.roots, and start the deployment merge for each training run that has ended.

    Runs that stand refused make the ending state Refused, and are in the name.

    Args:
        refresh: Merge again what was merged before.
    """
    params = read_params(params_file())
    refused = look_around(
        params, lambda source, digest: _start(params, source, key_of(digest, params), refresh), refresh
    )
    if not refused:
        return None
    with get_client(sync_client=True) as client:
        client.update_flow_run(UUID(str(flow_run.id)), name=f"look around: {len(refused)} refused")
    return Completed(name="Refused", message=f"mend that and run them by hand: {'; '.join(refused)}")


def look_around(params: Params, start: Callable[[str, str], object], refresh: bool = False) -> list[str]:
    """Call `start` with address and digest of each run to merge; with `refresh` also of merged ones.

    Returns the runs that stand refused, with the reason. A failure does not stop the others; all are reported
    at the end by a LorelineError.
    """
    failed: list[str] = []
    refused: list[str] = []
    for source, digest in _to_merge(params, refresh, failed, refused):
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
    return refused


def _to_merge(
    params: Params, refresh: bool, failed: list[str], refused: list[str]
) -> Iterator[tuple[str, str]]:
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
        elif (standing := ledger.standing(key)) and not (refresh and standing.state == "merged"):
            say(f"{source}: {standing.sentence}")
        elif not refresh and (before := ledger.merged_before(seen_as(seen.digest, params))):
            say(f"{source}: was merged with other parameters; --refresh merges it again: {before.sentence}")
        elif known and known.state == "refused":
            refused.append(f"{source}: {known.sentence}")
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


def _start(params: Params, source: str, key: str, refresh: bool) -> None:
    """Start a run of the merge deployment; `key`, the job's, makes overlapping calls start only one there."""
    known, name = Ledger().find(key), f"{MERGE}/{place_for(params, source)}"
    with get_client(sync_client=True) as client:
        try:
            deployed = client.read_deployment_by_name(name).id
        except ObjectNotFound:
            raise BadInput(name, "there is no such deployment", "make it with loreline serve") from None
        # Prefect returns the earlier run for a known key; one that has ended must not block the next attempt.
        for attempt in count(known.token if known else 0):
            started = client.create_flow_run_from_deployment(
                deployed,
                parameters={"run": source, "refresh": refresh},
                idempotency_key=f"{name}-{key}-{attempt}",
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
