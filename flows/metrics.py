"""`loreline metrics`: numbers for Prometheus, as text that node_exporter's textfile collector takes.

A file needs no port and no password, and it outlives `loreline serve`, whose end is what should be noticed.
"""

import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName, FlowRunFilter
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prometheus_client import CollectorRegistry, Gauge, generate_latest, write_to_textfile

from flows.places import MERGE, project_of, tag_of
from tasks.base.directories import state_dir
from tasks.doctor.probe import WAIT_S
from tasks.doctor.versioning import COUNT_S, cache_directory, nearest, size_of
from tasks.jobs.ledger import LedgerEntry, as_it_is, known_jobs, unmerged
from tasks.parameters.params import Params

STATES = ("merged", "refused", "failed", "killed", "merging")
WAITING, RUNNING = ("SCHEDULED", "PENDING", "PAUSED"), ("RUNNING",)
QUEUE_SHOWN = 200


class Measurement(NamedTuple):
    """A value with a name, one label of its own or none, and what it is."""

    name: str
    value: float
    what: str
    label: tuple[str, str] | None = None


def show_metrics(params: Params, root: Path, out: Path | None) -> str:
    """Return the metrics as text, or write them to `out` in one step and return its name."""
    project, registry = project_of(params), CollectorRegistry()
    gauges: dict[str, Gauge] = {}
    for name, value, what, label in [*of_jobs(known_jobs()), *_of_disks(root), *_of_prefect(project)]:
        names = ("project", *(label[:1] if label else ()))
        if name not in gauges:
            gauges[name] = Gauge(f"loreline_{name}", what, names, registry=registry)
        gauges[name].labels(project, *(label[1:] if label else ())).set(value)
    if out is None:
        return generate_latest(registry).decode().rstrip("\n")
    write_to_textfile(str(out), registry)
    return str(out)


def of_jobs(jobs: list[LedgerEntry]) -> Iterator[Measurement]:
    """Yield what a ledger says, whose jobs come with those that changed last first.

    A run that was refused or failed counts until it is merged.
    """
    standing = [*(entry for entry in jobs if entry.state == "merged"), *unmerged(jobs)]
    states = [(as_it_is(entry)[0], entry.since) for entry in standing]
    counts = Counter(state for state, _ in states)
    for state in STATES:
        yield Measurement(
            "jobs", counts[state], "Training runs, each with its parameters, in the ledger.", ("state", state)
        )
    for name, those, what in (
        ("last_success_timestamp_seconds", {"merged"}, "When a run last became merged."),
        (
            "last_failure_timestamp_seconds",
            {"refused", "failed"},
            "When a run was last refused or failed.",
        ),
    ):
        if found := [since for state, since in states if state in those]:
            yield Measurement(name, max(found), what)


def _of_disks(root: Path) -> Iterator[Measurement]:
    places = {"state": state_dir()}
    if (root / ".dvc").is_dir():
        places["dvc_cache"] = cache_directory(root)
    for name, place in places.items():
        free = shutil.disk_usage(nearest(place.absolute())).free
        yield Measurement("disk_free_bytes", free, "Free where these files are.", ("place", name))
        used, whole = size_of(place, COUNT_S)
        if whole:
            yield Measurement("disk_used_bytes", used, "What these files hold.", ("place", name))


def _of_prefect(project: str) -> Iterator[Measurement]:
    """Yield queue and duration, as far as the server that is configured answers; nothing where none is."""
    if not PREFECT_API_URL.value():
        return
    found: list[Measurement] = []
    settings = temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0})
    failures = suppress(httpx.HTTPError, PrefectHTTPStatusError, ValueError)
    with failures, settings, get_client(sync_client=True, httpx_settings={"timeout": WAIT_S}) as client:
        found = list(_asked(client, project))
    yield Measurement(
        "prefect_up", bool(found), "Whether Prefect's server answers, and takes the credentials."
    )
    yield from found


def _asked(client: SyncPrefectClient, project: str) -> Iterator[Measurement]:
    flow, tags = FlowFilter(name=FlowFilterName(any_=[MERGE])), {"all_": [tag_of(project)]}
    for name, types in (("waiting", WAITING), ("running", RUNNING)):
        wanted = FlowRunFilter.model_validate({"state": {"type": {"any_": list(types)}}, "tags": tags})
        count = len(client.read_flow_runs(flow_filter=flow, flow_run_filter=wanted, limit=QUEUE_SHOWN))
        yield Measurement("queue", count, "Flow runs of merge that have not ended.", ("state", name))
    merged = {"type": {"any_": ["COMPLETED"]}, "name": {"any_": ["Completed"]}}  # not where nothing was to do
    ended = FlowRunFilter.model_validate({"state": merged, "tags": tags})
    newest = FlowRunSort.END_TIME_DESC
    for run in client.read_flow_runs(flow_filter=flow, flow_run_filter=ended, sort=newest, limit=1):
        seconds = run.total_run_time.total_seconds()
        yield Measurement(
            "last_merge_duration_seconds",
            seconds,
            "How long the last merge took, with waiting for its device.",
        )
