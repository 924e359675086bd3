"""Thirty nights of two machines with two projects: kills, promotions, a changed parameter, a prune a week.

By make test-month; what it measures is printed.
"""

import hashlib
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.servers import both_servers
from tests.support.team_hosts import LEASE_S, PERMITTED, Host, Hosts

pytestmark = [
    pytest.mark.team,
    pytest.mark.faults,
    pytest.mark.timeout(7200),
    pytest.mark.skipif(not PERMITTED, reason="host names of one's own are not permitted"),
]
NIGHTS, SEED = int(os.environ.get("NIGHTS", "30")), int(os.environ.get("SEED", "0"))
NEWEST = 3
ADDED = (
    "loreline.git_tag",
    "loreline.git_revision",
    "loreline.push",
    "loreline.pruned",
    "loreline.promot",
    "loreline.forced",
)
"""How the tags begin that a version gets after it was made."""
KILLS, PROMOTIONS, CHANGE = (4, 10, 14, 17, 23, 29), (5, 11), 13


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    retention = {"retention": {"newest": NEWEST, "promoted_within": 0}}
    with both_servers(tmp_path / "servers") as servers:
        hosts = Hosts(tmp_path / "hosts", servers, {"chat": retention, "code": retention})
        yield hosts
        hosts.stop()


def told(version: Any) -> tuple[str, dict[str, str]]:
    """Return what a version says since it was made."""
    return version.description, {
        key: value for key, value in version.tags.items() if not key.startswith(ADDED)
    }


def does(host: Host, *words: str) -> None:
    host.begin(*words)
    assert host.end() == 0, host.said()[-4000:]


def weights(*places: Path) -> int:
    """Count the different files below some places that are as big as the models' weights."""
    return len(
        {
            hashlib.sha256(path.read_bytes()).hexdigest()
            for place in places
            for path in place.rglob("*")
            if path.is_file() and path.stat().st_size > 10_000 and b"model.norm" in path.read_bytes()
        }
    )


def test_a_month_of_two_machines_and_two_projects(hosts: Hosts, tmp_path: Path) -> None:
    moment, began = random.Random(SEED), time.monotonic()
    runs: dict[str, list[str]] = {"chat": [], "code": []}
    history: dict[tuple[str, int], tuple[str, dict[str, str]]] = {}
    champions: list[int] = []
    kills = 0
    for night in range(1, NIGHTS + 1):
        project = "chat" if night % 3 else "code"
        name = f"{project}-{night}"
        hosts.train(project, name, night)
        runs[project].append(name)
        if night in KILLS:
            first, second = moment.sample([hosts.one, hosts.two], 2)
            first.begin("watch", "--params", f"{project}.yaml")
            time.sleep(moment.uniform(2, 15))
            first.kill()
            kills += 1
            time.sleep(LEASE_S)
            for host in (second, first):
                does(host, "watch", "--params", f"{project}.yaml")
        elif hosts.look(project) != (0, 0):
            raise AssertionError(hosts.one.said()[-4000:] + hosts.two.said()[-4000:])
        if night == CHANGE:
            for host in (hosts.one, hosts.two):
                path = host.clone / "chat.yaml"
                tree = yaml.safe_load(path.read_text())
                path.write_text(yaml.safe_dump(tree | {"evaluate": tree["evaluate"] | {"limit": 8}}))
        if night in PROMOTIONS:
            does(hosts.two, "promote", "--params", "chat.yaml", "--force", "--why", "the month's")
            champions.append(len(runs["chat"]))
        if night % 7 == 0 or night == NIGHTS:
            for host in (hosts.one, hosts.two):
                for each in runs:
                    does(host, "watch", "--params", f"{each}.yaml")
                    does(host, "prune", "--yes", "--params", f"{each}.yaml")
        for each in runs:
            versions = hosts.versions(each)
            assert sorted(version.tags["loreline.run"] for version in versions) == sorted(runs[each])
            for version in versions:
                key = (each, int(version.version))
                assert history.setdefault(key, told(version)) == told(version)
        print(f"night {night}: {name}, {time.monotonic() - began:.0f} s", flush=True)

    kept = {each: _kept(len(runs[each]), champions if each == "chat" else []) for each in runs}
    total, left = sum(map(len, runs.values())), sum(map(len, kept.values()))
    flow_runs = hosts.flow_runs()
    caches = [host.clone / ".dvc" / "cache" for host in (hosts.one, hosts.two)]
    held = [weights(hosts.servers.mlflow.log.parent), weights(hosts.dvc_remote), weights(*caches)]
    print(
        f"{NIGHTS} nights, seed {SEED}, {kills} kills: {total} runs, {sum(len(hosts.versions(each)) for each in runs)} "
        f"versions; weights of {held} in MLflow, on the DVC remote and in the caches, where {left} are kept; "
        f"{len(flow_runs)} flow runs; {time.monotonic() - began:.0f} s",
        flush=True,
    )
    names: dict[str, str] = {}
    for each in runs:
        versions = hosts.versions(each)
        names |= {
            v.tags["loreline.git_tag"]: v.tags["loreline.git_revision"]
            for v in versions
            if "loreline.pruned" not in v.tags
        }
        assert {int(v.version) for v in versions if "loreline.pruned" not in v.tags} == kept[each]
        does(
            hosts.one, "history", "--params", f"{each}.yaml", "--html", str(page := tmp_path / f"{each}.html")
        )
        assert all(run in page.read_text() for run in runs[each])  # a line a night
    assert hosts.pushed() == names
    assert hosts.one.tags() | hosts.two.tags() == names
    assert hosts.claims() == []
    assert _aliases(hosts) == {
        "chat": {
            "challenger": len(runs["chat"]),
            **dict(zip(("champion", "previous-champion"), reversed(champions), strict=False)),
        },
        "code": {"challenger": len(runs["code"])},
    }
    assert held == [left, left, left]
    assert not [place for host in (hosts.one, hosts.two) for place in (host.state / "runs").iterdir()]
    assert len([run for run in flow_runs if run["state_name"] == "Completed"]) == total


def _kept(newest: int, champions: list[int]) -> set[int]:
    """Return the versions that keep their weights: the newest, and what an alias points at."""
    return {*range(max(1, newest - NEWEST + 1), newest + 1), *champions[-2:]}


def _aliases(hosts: Hosts) -> dict[str, dict[str, int]]:
    client = hosts.client()
    return {
        each: {alias: int(number) for alias, number in client.get_registered_model(each).aliases.items()}
        for each in hosts.projects
    }
