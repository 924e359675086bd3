"""Two machines, a HOME, a clone and a host name each, look at the same runs: one merge a run, whoever is killed.

They share servers (on PostgreSQL by make test-team), the runs' disk, a git remote and a DVC remote, and no
state: each has a ledger of its own. The tests run in order.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.servers import both_servers, until
from tests.support.team_hosts import LEASE_S, PERMITTED, Hosts, kill_family

pytestmark = [
    pytest.mark.team,
    pytest.mark.skipif(not PERMITTED, reason="host names of one's own are not permitted"),
]


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    with both_servers(tmp_path_factory.mktemp("servers")) as servers:
        hosts = Hosts(tmp_path_factory.mktemp("hosts"), servers, {"chat": {}})
        yield hosts
        hosts.stop()


def assert_merged_once(hosts: Hosts, *runs: str) -> None:
    """Each run has one version, whose tag is one commit in every clone and on the remote."""
    versions = hosts.versions("chat")
    assert sorted(version.tags["loreline.run"] for version in versions) == sorted(runs)
    told = {version.tags["loreline.git_tag"]: version.tags["loreline.git_revision"] for version in versions}
    assert hosts.pushed() == told
    for host in (hosts.one, hosts.two):
        assert host.tags().items() <= told.items()
    assert {version.tags["loreline.push"] for version in versions} == {"done"}
    worked = [run["name"] for run in hosts.flow_runs() if run["state_name"] == "Completed"]
    assert len(worked) == len(runs)
    assert hosts.claims() == []


def test_of_two_machines_that_look_at_the_same_moment_one_merges_a_run(hosts: Hosts) -> None:
    for seed, name in enumerate(("first", "second")):
        hosts.train("chat", name, seed)
    assert hosts.look("chat") == (0, 0), hosts.one.said()[-3000:] + hosts.two.said()[-3000:]
    assert_merged_once(hosts, "first", "second")
    assert hosts.look("chat") == (0, 0)  # who was refused hears now that they are merged
    assert_merged_once(hosts, "first", "second")
    said = hosts.one.said() + hosts.two.said()
    assert "is being merged by process" in said
    assert "is of the same run" in said
    for run in hosts.flow_runs():
        assert run["state_type"] == "COMPLETED"


def test_a_machine_that_is_killed_is_followed_by_the_other_and_finds_it_done(hosts: Hosts) -> None:
    hosts.train("chat", "third", 3)
    hosts.one.begin("watch", "--params", "chat.yaml")
    until(lambda: list(hosts.one.state.glob("runs/*/artifacts/*merged*")), every=0.01)
    hosts.one.kill()
    assert len(hosts.claims()) == 1
    time.sleep(LEASE_S)
    for host in (hosts.two, hosts.one):
        host.begin("watch", "--params", "chat.yaml")
        assert host.end() == 0, host.said()[-3000:]
    assert_merged_once(hosts, "first", "second", "third")
    assert "is silent; it is watched for 4 s" in hosts.two.said()
    (crashed,) = [run for run in hosts.flow_runs() if run["state_name"] == "Crashed"]
    assert crashed["name"].endswith("third")


def test_both_serve_and_the_run_is_merged_once(hosts: Hosts, tmp_path: Path) -> None:
    hosts.train("chat", "fourth", 4)
    serving = [host.start("serve", "--params", "chat.yaml") for host in (hosts.one, hosts.two)]
    try:
        until(
            lambda: any(each.tags.get("loreline.push") == "done" for each in hosts.versions("chat")[3:]), 200
        )
        until(lambda: len(_looks(hosts)) == 2 and not hosts.claims(), 200)
        until(lambda: all(run["end_time"] for run in _merges(hosts)), 200)
    finally:
        for process in serving:
            kill_family(process)
    assert_merged_once(hosts, "first", "second", "third", "fourth")


def _looks(hosts: Hosts) -> list[object]:
    """Return the looks of the deployments that are over."""
    found = hosts.servers.prefect.post("flow_runs/filter", flows={"name": {"any_": ["watch"]}}, limit=50)
    return [run for run in found if run["deployment_id"] and run["state_type"] == "COMPLETED"]


def _merges(hosts: Hosts) -> list[dict[str, object]]:
    found: list[dict[str, object]] = hosts.servers.prefect.post(
        "flow_runs/filter", flows={"name": {"any_": ["merge"]}}, limit=200
    )
    return [run for run in found if run["state_type"] != "CRASHED"]
