"""Ended flow runs are found by their age and removed; running ones, and other flows', stay."""

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
        ):
            run = client.create_flow_run(flow(lambda: None, name=name))
            made[name] = run.id
            for state in states:
                client.set_flow_run_state(run.id, state, force=True)
        assert old_flow_runs(now - timedelta(days=30)) == []
        found = old_flow_runs(now + timedelta(minutes=5))
        assert made["merge"] in found
        assert not {made["watch"], made["theirs"]} & set(found)
        remove_flow_runs([made["merge"], made["merge"]])
        assert made["merge"] not in old_flow_runs(now + timedelta(minutes=5))
        assert client.read_flow_run(made["watch"])
        assert client.read_flow_run(made["theirs"])


def test_a_server_that_does_not_answer_is_named() -> None:
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        told = old_flow_runs(datetime.now(UTC))
    assert told == "http://127.0.0.1:9/api does not answer (ConnectError)"
