"""`loreline doctor`: checks of everything that a run needs, with remedies."""

import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from flows.flow_names import FLOWS, OLD_FLOWS
from tasks.base.errors import BadInput, without_secrets
from tasks.doctor.clock import check_file_times
from tasks.doctor.disk import check_disk
from tasks.doctor.failures import check_failures
from tasks.doctor.finding import Finding, Level
from tasks.doctor.findings_table import findings_text
from tasks.doctor.gpu import check_gpu
from tasks.doctor.merging import check_merging
from tasks.doctor.parameters import check_chat_template, check_evaluation, check_source
from tasks.doctor.prefect_server import (
    OF_RELEASE_0_1,
    TRIGGER_OF_RELEASE_0_1,
    Deployment,
    Limit,
    Running,
    judge_deployments,
    judge_limits,
    judge_running,
    judge_version,
    of_release_0_1,
)
from tasks.doctor.probe import WAIT_S, clock_of, probe, unguarded
from tasks.doctor.registry import check_registry
from tasks.doctor.side_by_side import Check, side_by_side
from tasks.doctor.training_runs import check_training_runs
from tasks.doctor.versioning import check_remote, check_versioning
from tasks.doctor.versions import check_versions
from tasks.parameters.params import Params, read_params

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

DOCTOR_DEADLINE_S = 13.0


def doctor(params_file: Path) -> int:
    """Run every check, print the findings, and return the exit code.

    2 when there is a problem, 1 when there is none but a check could not be answered, else 0.
    """
    found, params = _parameters(params_file)
    with Console(stderr=True).status("checking"):
        found += side_by_side(_lanes(params, Path.cwd()), DOCTOR_DEADLINE_S)
    Console(file=sys.stdout).print(findings_text(found), soft_wrap=True)
    return exit_code(found)


def exit_code(found: Iterable[Finding]) -> int:
    """Return what findings mean to a script; those of area Doctor are checks that themselves failed."""
    levels, areas = {finding.level for finding in found}, {finding.area for finding in found}
    return 2 if "problem" in levels else 1 if "Doctor" in areas else 0


def _parameters(path: Path) -> tuple[list[Finding], Params | None]:
    try:
        return [Finding("Parameters", path.name, "can be read")], read_params(path)
    except BadInput as error:
        return [Finding("Parameters", path.name, str(error), "problem")], None


def _lanes(params: Params | None, root: Path) -> list[list[Check]]:
    """Return the checks in lanes, slow ones apart; without parameters, only those that need none."""
    quick = [Check("versions", check_versions), Check("file times", check_file_times)]
    computing = [Check("GPU", partial(check_gpu, params))]
    lanes = [quick, computing, [Check("Prefect", check_prefect)]]
    if params:
        quick += [
            Check("source", partial(check_source, params)),
            Check("chat template", partial(check_chat_template, params)),
            Check("git and DVC", partial(check_versioning, params.version, root)),
            Check("training runs", partial(check_training_runs, params, root)),
            Check("failures", check_failures),
            Check("disk", partial(check_disk, params, root)),
        ]
        computing.insert(0, Check("evaluation tasks", partial(check_evaluation, params)))
        lanes.append([Check("merge", partial(check_merging, params, root))])
        lanes.append([Check("registry", partial(check_registry, params.register_))])
        needed: Level = "problem" if params.version.push else "warning"
        lanes.append([Check("DVC remote", partial(check_remote, params.version, root), needed)])
    return lanes


def check_prefect() -> list[Finding]:
    """Check the Prefect server that is configured; none is started."""
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectHTTPStatusError
    from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    from flows.prefect_access import CREDENTIALS, REFUSES, refuses

    url = PREFECT_API_URL.value()
    if not url:
        text = "PREFECT_API_URL is not set: runs by hand work, nothing runs by itself"
        remedy = "loreline serve; or prefect server start, then prefect config set PREFECT_API_URL=http://127.0.0.1:4200/api"
        return [Finding("Prefect", "server", text, "warning", remedy)]
    server, remedy = without_secrets(url), "prefect server start, or correct PREFECT_API_URL"
    if (answer := probe(f"{url.rstrip('/')}/health")) is None:
        return [Finding("Prefect", "server", f"{server} does not answer", "problem", remedy)]
    found = [
        Finding("Prefect", "server", server),
        *clock_of("Prefect server", answer),
        *unguarded("Prefect", url, "admin/version"),
    ]
    try:
        settings = temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0})
        with settings, get_client(sync_client=True, httpx_settings={"timeout": WAIT_S}) as client:
            return found + list(_ask(client))
    except (httpx.HTTPError, PrefectHTTPStatusError, ValueError) as error:
        if isinstance(error, PrefectHTTPStatusError) and refuses(error):
            return [Finding("Prefect", "server", f"{server} {REFUSES}", "problem", CREDENTIALS), *found[1:]]
        text = f"{server} is no Prefect server, or refuses: {without_secrets(str(error).splitlines()[0])}"
        return [Finding("Prefect", "server", text, "problem", remedy), *found[1:]]


def _ask(client: "SyncPrefectClient") -> Iterator[Finding]:
    from prefect.client.schemas.filters import FlowFilter, FlowFilterName, FlowRunFilter
    from prefect.settings import get_current_settings

    yield judge_version(client.api_version(), client.client_version())
    deployed = [
        _deployment(flow, each)
        for flow in (*FLOWS, *OLD_FLOWS)
        for each in client.read_deployments(flow_filter=FlowFilter(name=FlowFilterName(any_=[flow])))
    ]
    old = [each for each in deployed if each.name in OF_RELEASE_0_1 and not each.ready]
    yield from judge_deployments(
        [each for each in deployed if each.name.startswith("watch/") and each not in old]
    )
    triggered = bool(client.read_automations_by_name(TRIGGER_OF_RELEASE_0_1))
    yield from of_release_0_1([each.name for each in old], triggered)
    ours = FlowFilter(name=FlowFilterName(any_=FLOWS))
    going = FlowRunFilter.model_validate({"state": {"type": {"any_": ["RUNNING"]}}})
    runs = client.read_flow_runs(flow_filter=ours, flow_run_filter=going, limit=50)
    every = get_current_settings().flows.heartbeat_frequency
    if every:
        yield from judge_running([_running(client, run) for run in runs], every)
    limits = [
        Limit(each.name, each.limit, each.active_slots)
        for each in client.read_global_concurrency_limits(limit=200)
    ]
    yield from judge_limits(limits, len(runs))


def _deployment(flow: str, each: Any) -> Deployment:
    """Reduce Prefect's record; READY means that a process polls for its runs."""
    on = [] if each.paused else [entry.schedule for entry in each.schedules if entry.active]
    when = tuple(
        f"{getattr(schedule, 'cron', None) or type(schedule).__name__} {schedule.timezone or 'UTC'}"
        for schedule in on
    )
    return Deployment(f"{flow}/{each.name}", str(each.status) == "READY", each.work_pool_name, when)


def _running(client: "SyncPrefectClient", run: "FlowRun") -> Running:
    """Return a flow run with the time since its newest heartbeat, or its start."""
    wanted = {
        "event": {"name": ["prefect.flow-run.heartbeat"]},
        "resource": {"id": [f"prefect.flow-run.{run.id}"]},
    }
    events = client.request("POST", "/events/filter", json={"filter": wanted, "limit": 1}).json()["events"]
    signs = [datetime.fromisoformat(event["occurred"]) for event in events]
    signs += [run.start_time] if run.start_time else []
    now = datetime.now(UTC)
    return Running(run.name, str(run.id), (now - max(signs, default=now)).total_seconds())
