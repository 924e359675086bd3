"""Judging a Prefect server's deployments, concurrency limits and running flows."""

from collections.abc import Sequence
from typing import NamedTuple

from tasks.doctor.finding import Finding

DEVICES = "loreline-"
"""Prefix of the names of the devices' concurrency limits."""
MISSED_HEARTBEATS = 3
"""Missed heartbeats after which a flow run counts as silent."""


OF_RELEASE_0_1 = {"watch/watch", "after-training/merge", "merge/merge", "promote/promote"}
"""Deployments that release 0.1 made; later ones are named by project and host."""
TRIGGER_OF_RELEASE_0_1 = "training ended"


class Deployment(NamedTuple):
    """A deployment of one of our flows."""

    name: str
    ready: bool
    """Whether a process has asked the server for its runs within the last minute."""
    pool: str | None
    schedules: tuple[str, ...]
    """Active schedules, in the schedule's own terms with its time zone."""


class Limit(NamedTuple):
    """A concurrency limit."""

    name: str
    limit: int
    held: int


class Running(NamedTuple):
    """A flow run in state Running, and the seconds since its last heartbeat."""

    name: str
    id: str
    silent: float


def judge_version(server: str, client: str) -> Finding:
    """Compare the server's release with the client's."""
    if server == client:
        return Finding("Prefect", "version", client)
    text = f"the server is {server}, this client {client}"
    return Finding("Prefect", "version", text, "warning", "install the same release on both sides")


def judge_deployments(deployments: Sequence[Deployment]) -> list[Finding]:
    """Report the deployments that look for ended runs, with their schedules."""
    if not deployments:
        remedy = "loreline serve"
        return [
            Finding(
                "Prefect", "watch", "there is no such deployment: nothing merges by itself", "warning", remedy
            )
        ]
    return [_deployment(each) for each in deployments]


def of_release_0_1(names: Sequence[str], triggered: bool) -> list[Finding]:
    """Report the deployments that an upgrade left, and their trigger, which outlives them (`triggered`)."""
    text = "is of release 0.1, and nobody serves it: what it starts waits for ever"
    found = [Finding("Prefect", name, text, "warning", f"prefect deployment delete {name}") for name in names]
    if triggered:
        text = "is a trigger of release 0.1: announcements go to a deployment that nobody serves"
        remedy = f"prefect automation delete '{TRIGGER_OF_RELEASE_0_1}'"
        found.append(Finding("Prefect", TRIGGER_OF_RELEASE_0_1, text, "warning", remedy))
    return found


def judge_limits(limits: Sequence[Limit], running: int) -> list[Finding]:
    """Report devices that are set to 0, or held although no flow run of Loreline is running."""
    found = []
    for each in limits:
        if not each.name.startswith(DEVICES):
            continue
        if each.limit == 0:
            remedy = f"prefect gcl update {each.name} --limit 1"
            found.append(
                Finding("Prefect", each.name, "is set to 0: no merge starts there", "warning", remedy)
            )
        elif each.held and not running:
            text = f"{each.held} of {each.limit} slots are held, but no flow run is running"
            remedy = f"prefect gcl update {each.name} --active-slots 0"
            found.append(Finding("Prefect", each.name, text, "warning", remedy))
    return found


def judge_running(runs: Sequence[Running], every: float) -> list[Finding]:
    """Report flow runs without heartbeats; `every`: seconds between heartbeats."""
    silent = [run for run in runs if run.silent > MISSED_HEARTBEATS * every]
    found = [
        Finding(
            "Prefect",
            run.name,
            f"is Running, but gave no sign of life for {run.silent / 60:.0f} min",
            "warning",
            f"if its process is gone: prefect flow-run delete {run.id}",
        )
        for run in silent
    ]
    alive = len(runs) - len(silent)
    return [Finding("Prefect", "flow runs", f"{alive} running" if alive else "none running"), *found]


def _deployment(each: Deployment) -> Finding:
    when = "; ".join(each.schedules) or "no schedule"
    if each.ready:
        return Finding("Prefect", each.name, f"is served ({when})")
    remedy = f"prefect worker start --pool {each.pool}" if each.pool else "loreline serve"
    return Finding("Prefect", each.name, f"nobody asked for its runs lately ({when})", "warning", remedy)
