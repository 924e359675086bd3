"""Ended flow runs are found by their age and removed; running ones, and those of other flows and projects, stay."""

from datetime import UTC, datetime, timedelta

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Completed, Running

from flows.old_flow_runs import old_flow_runs, remove_flow_runs


@pytest.mark.servers
def test_only_what_ended_before_is_removed(prefect: None) -> None:
    now = datetime.now(UTC)
    with get_client(sync_client=True) as client:
        made = {}
        for name, states in (
            ("merge", [Running(), Completed()]),
            ("watch", [Running()]),
            ("theirs", [Running(), Completed()]),
            ("promote", [Running(), Completed()]),
        ):
            tags = {"merge": ["project:ours"], "promote": ["project:another"]}.get(name, [])
            run = client.create_flow_run(flow(lambda: None, name=name), tags=tags)
            made[name] = run.id
            for state in states:
                client.set_flow_run_state(run.id, state, force=True)
        assert old_flow_runs(now - timedelta(days=30), "ours") == []
        found = old_flow_runs(now + timedelta(minutes=5), "ours")
        assert made["merge"] in found
        before = client.create_flow_run(flow(lambda: None, name="merge"))  # of a release without tags
        client.set_flow_run_state(before.id, Completed(), force=True)
        assert before.id in old_flow_runs(now + timedelta(minutes=5), "ours")
        assert not {made["watch"], made["theirs"], made["promote"]} & set(found)
        remove_flow_runs([made["merge"], made["merge"]])
        assert made["merge"] not in old_flow_runs(now + timedelta(minutes=5), "ours")
        assert client.read_flow_run(made["watch"])
        assert client.read_flow_run(made["theirs"])


def test_a_server_that_does_not_answer_is_named() -> None:
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        told = old_flow_runs(datetime.now(UTC), "ours")
    assert told == "http://127.0.0.1:9/api does not answer (ConnectError)"
