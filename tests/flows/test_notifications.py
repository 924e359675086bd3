"""Notifications reach a real webhook through Prefect's automations, which are made once however often asked."""

import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Completed, Failed, Running, Suspended

from flows.notifications import automations, make_notifications, tell_moved
from tasks.base.errors import BadInput
from tasks.parameters.params import Params
from tests.support.servers import PrefectServer, prefect_server, until

OURS, THEIRS = ["project:demo"], ["project:demo2"]
MOVED = "champion: models:/demo/2 (was 1)"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    with prefect_server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def api(server: PrefectServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[PrefectServer]:
    monkeypatch.setenv("PREFECT_API_URL", server.api_url)
    with temporary_settings({PREFECT_API_URL: server.api_url}):
        yield server


@pytest.fixture
def received() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Give the address of a webhook, and what was posted there."""
    posted: list[dict[str, Any]] = []

    class Hook(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hook) as hook:
        threading.Thread(target=hook.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{hook.server_port}", posted
        hook.shutdown()


def watching(**watch: object) -> Params:
    """Return a project's parameters."""
    tree = {"fetch": {"source": "runs/x"}, "evaluate": {"tasks": ["t"], "primary": "t/nll"}, "register": {"name": "demo"}}  # fmt: skip
    return Params.model_validate(tree | {"watch": watch})


def block(url: str, name: str) -> str:
    from prefect.blocks.notifications import CustomWebhookNotificationBlock

    webhook = CustomWebhookNotificationBlock(
        name="hook", url=url, json_data={"subject": "{{subject}}", "body": "{{body}}"}
    )
    webhook.save(name, overwrite=True)
    return f"custom-webhook/{name}"


def ours() -> list[Any]:
    with get_client(sync_client=True) as client:
        return [each for each in client.read_automations() if each.name.startswith("loreline demo: ")]


@pytest.mark.servers
def test_what_happens_is_posted_once(api: PrefectServer, received: tuple[str, list[dict[str, Any]]]) -> None:
    url, posted = received
    params = watching(notify=block(url, "hook"), merge_expected_within=7.0)
    names = make_notifications(params)
    assert make_notifications(params) == names
    assert sorted(each.name for each in ours()) == sorted(names)
    assert len(names) == 5
    with get_client(sync_client=True) as client:
        failed, done = Failed(message="no tokenizer"), Completed(message="KEEP: it worsens")
        for state, tags in ((failed, THEIRS), (failed, OURS), (done, OURS), (done, [])):
            run = client.create_flow_run(
                flow(lambda: None, name="merge"), name=f"runs/{state.name}", tags=tags
            )
            client.set_flow_run_state(run.id, Running(), force=True)
            client.set_flow_run_state(run.id, state, force=True)
        run = client.create_flow_run(flow(lambda: None, name="promote"), name="keen-otter", tags=OURS)
        client.set_flow_run_state(run.id, Suspended(timeout_seconds=60), force=True)
    tell_moved("demo2", 2, "another project's")
    tell_moved("demo", 2, MOVED)
    until(lambda: len(posted) >= 4, seconds=60)
    assert sorted((each["subject"], each["body"]) for each in posted) == [
        ("demo: approval wanted", "keen-otter waits in Prefect"),
        ("demo: champion moved", MOVED),
        ("demo: merge failed", "runs/Failed: no tokenizer"),
        ("demo: verdict ready", "runs/Completed: KEEP: it worsens"),
    ]


@pytest.mark.servers
def test_changed_parameters_change_the_automation_and_a_users_changes_stay(api: PrefectServer) -> None:
    params = watching(notify=block("http://127.0.0.1:9", "other"), merge_expected_within=7.0)
    make_notifications(params)
    with get_client(sync_client=True) as client:
        [failed] = client.read_automations_by_name("loreline demo: merge failed")
        client.pause_automation(failed.id)
        make_notifications(params)
        assert not client.read_automations_by_name("loreline demo: merge failed")[0].enabled
        make_notifications(watching(notify=params.watch.notify, merge_expected_within=2.0))
        [silent] = client.read_automations_by_name("loreline demo: no merge")
        assert silent.actions[0].body == "No merge was completed for 2 days."
        assert silent.trigger.within.days == 2


@pytest.mark.servers
def test_silence_is_told(api: PrefectServer, received: tuple[str, list[dict[str, Any]]]) -> None:
    url, posted = received
    make_notifications(watching(notify=block(url, "silence"), merge_expected_within=10 / 86400))
    until(lambda: "demo: no merge" in [each["subject"] for each in posted], seconds=90)


def test_a_server_that_is_gone_does_not_stop_a_promotion(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        tell_moved("demo", 2, MOVED)
    assert capsys.readouterr().err == "not announced to Prefect (ConnectError)\n"


@pytest.mark.servers
def test_a_block_that_is_not_there_is_named(api: PrefectServer) -> None:
    with pytest.raises(BadInput, match="watch.notify: Prefect has no block slack-webhook/none; make it in"):
        make_notifications(watching(notify="slack-webhook/none"))


def test_without_a_block_or_a_server_nothing_is_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    assert make_notifications(watching()) == []
    tell_moved("demo", 2, MOVED)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("days", [None, 0.5, 7.0])
def test_the_automations_differ_in_what_they_say(days: float | None) -> None:
    found = automations("demo", "0" * 8, days)
    assert len({each["name"] for each in found}) == len(found) == (4 if days is None else 5)
    assert len({each["description"] for each in found}) == len(found)
    assert automations("demo", "0" * 8, days) == found
