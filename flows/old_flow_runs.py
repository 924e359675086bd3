"""Prefect's flow runs that ended long ago."""

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName, FlowRunFilter
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from flows.flow_names import FLOWS, OLD_FLOWS
from flows.places import tag_of
from flows.prefect_access import CREDENTIALS, REFUSES, refuses
from tasks.base.errors import without_secrets
from tasks.doctor.probe import WAIT_S

ENDED = ["COMPLETED", "FAILED", "CANCELLED", "CRASHED"]
RUNS_AT_ONCE = 200


def old_flow_runs(before: datetime, project: str) -> list[UUID] | str:
    """Return a project's flow runs that ended before a time, or why that is not known.

    Those without a tag are of a release that told no projects apart; they are every project's.
    """
    url = PREFECT_API_URL.value()
    if not url:
        return "PREFECT_API_URL is not set"
    ours = FlowFilter(name=FlowFilterName(any_=[*FLOWS, *OLD_FLOWS]))
    ended = {"state": {"type": {"any_": ENDED}}, "end_time": {"before_": before.isoformat()}}
    try:
        settings = temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0})
        with settings, get_client(sync_client=True, httpx_settings={"timeout": WAIT_S}) as client:
            return [
                run
                for tags in ({"all_": [tag_of(project)]}, {"is_null_": True})
                for run in _runs(client, ours, FlowRunFilter.model_validate(ended | {"tags": tags}))
            ]
    except (httpx.HTTPError, PrefectHTTPStatusError) as error:
        if isinstance(error, PrefectHTTPStatusError) and refuses(error):
            return f"{without_secrets(url)} {REFUSES}; {CREDENTIALS}"
        return f"{without_secrets(url)} does not answer ({type(error).__name__})"


def _runs(client: SyncPrefectClient, ours: FlowFilter, wanted: FlowRunFilter) -> list[UUID]:
    found: list[UUID] = []
    while page := client.read_flow_runs(
        flow_filter=ours,
        flow_run_filter=wanted,
        sort=FlowRunSort.START_TIME_ASC,
        limit=RUNS_AT_ONCE,
        offset=len(found),
    ):
        found += [run.id for run in page]
    return found


def remove_flow_runs(runs: Iterable[UUID]) -> None:
    """Remove flow runs; one that is gone already is no error."""
    with get_client(sync_client=True) as client:
        for run in runs:
            try:
                client.delete_flow_run(run)
            except ObjectNotFound:
                continue
