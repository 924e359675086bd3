"""The announcement: one POST of the event, with the credentials that are set, to the server that is named alone."""

import base64
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from loreline.announce import EVENT, announce, announce_log, server_problem
from tasks.base.directories import cache_dir
from tests.support.announcements import Recorder

pytestmark = pytest.mark.usefixtures("no_server")
SECRET = "open sesame/1"
Set = Callable[..., None]


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Set:
    def set_variables(**values: str) -> None:
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return set_variables


def basic(pair: str) -> str:
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


def test_one_event_is_posted_as_prefect_takes_it(environment: Set) -> None:
    with Recorder().running() as server:
        environment(PREFECT_API_URL=f"{server.url}/")
        assert announce("/data/a run", "first") == "announced"
    ((target, headers, (event,)),) = server.posted
    assert target == "/api/events"
    assert headers["Content-Type"] == "application/json"
    assert "Authorization" not in headers
    assert event["event"] == EVENT == "loreline.training.ended"
    assert event["payload"] == {
        "run": "/data/a run",
        "name": "first",
        "host": socket.gethostname(),
        "project": "",
    }
    assert event["resource"] == {
        "prefect.resource.id": "loreline.run./data/a run",
        "prefect.resource.name": "first",
    }


def test_the_environment_names_the_project_that_is_to_merge_the_run(environment: Set) -> None:
    with Recorder().running() as server:
        environment(PREFECT_API_URL=server.url, LORELINE_PROJECT="chat ")
        assert announce("/data/run", "first") == "announced"
    ((_, _, (event,)),) = server.posted
    assert event["resource"]["prefect.resource.id"] == "loreline.project.chat./data/run"
    assert event["payload"]["project"] == "chat"


@pytest.mark.parametrize(
    ("user", "variables", "sent"),
    [
        ("", {"PREFECT_API_KEY": SECRET}, f"Bearer {SECRET}"),
        ("", {"PREFECT_API_KEY": f"{SECRET}\n"}, f"Bearer {SECRET}"),  # as it comes out of a file
        ("", {"PREFECT_API_AUTH_STRING": f"ann:{SECRET}"}, basic(f"ann:{SECRET}")),
        ("", {"PREFECT_API_AUTH_STRING": f"ann:{SECRET}", "PREFECT_API_KEY": "k"}, basic(f"ann:{SECRET}")),
        ("bob:open%20sesame%2F1@", {"PREFECT_API_KEY": "k"}, basic(f"bob:{SECRET}")),
    ],
)  # fmt: skip
def test_credentials_are_sent_as_prefect_s_client_sends_them(
    environment: Set, user: str, variables: dict[str, str], sent: str
) -> None:
    with Recorder().running() as server:
        environment(PREFECT_API_URL=f"http://{user}{server.address}/api", **variables)
        assert announce("/data/run", "run") == "announced"
    assert [posted.headers["Authorization"] for posted in server.posted] == [sent]


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_with_the_key(environment: Set, code: int) -> None:
    with (
        Recorder().running() as elsewhere,
        Recorder(code, headers={"Location": elsewhere.url}).running() as server,
    ):
        environment(PREFECT_API_URL=server.url, PREFECT_API_KEY=SECRET)
        said = announce("/data/run", "run")
    assert f"the server answers {code}; is PREFECT_API_URL the server's own address" in said
    assert elsewhere.posted == []


def test_no_proxy_sees_what_is_sent_by_plain_http(environment: Set) -> None:
    with Recorder().running() as proxy, Recorder().running() as server:
        environment(http_proxy=f"http://{proxy.address}", PREFECT_API_URL=server.url, PREFECT_API_KEY=SECRET)
        assert announce("/data/run", "run") == "announced"
    assert proxy.posted == []
    assert len(server.posted) == 1


def test_a_proxy_for_https_only_hears_where_to_connect(environment: Set) -> None:
    with Recorder().running() as proxy:
        environment(https_proxy=f"http://{proxy.address}", PREFECT_API_URL="https://prefect.example.invalid/api", PREFECT_API_KEY=SECRET)  # fmt: skip
        said = announce("/data/run", "run")
    ((target, headers, _),) = proxy.posted
    assert target == "prefect.example.invalid:443"
    assert "Authorization" not in headers
    assert said.startswith("not announced, the watcher will find the run: ")


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (401, "401; set PREFECT_API_AUTH_STRING or PREFECT_API_KEY where training runs"),
        (404, "404; is PREFECT_API_URL the server's own address, with /api at its end?"),
        (500, "500; its log says why"),
    ],
)
def test_a_refusal_is_named_with_what_to_do(environment: Set, status: int, advice: str) -> None:
    with Recorder(status).running() as server:
        environment(PREFECT_API_URL=server.url)
        assert announce("/data/run", "run") == f"not announced, the watcher will find the run: the server answers {advice}"  # fmt: skip


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("http://ann:opensesame@127.0.0.1:1/api", ""),
        ("http://ann:opensesame@127.0.0.1:no/api", ""),
        ("http://ann:opensesame@[::1/api", ""),
        ("ann:opensesame@127.0.0.1/api", ""),
        ("file://ann:opensesame@localhost/etc/passwd", ""),
        ("http://127.0.0.1:1/opensesame\n/api", ""),
        ("http://127.0.0.1:1/api", "opensesame\nx"),
        ("http://127.0.0.1:1/api", "opensesame→"),
        ("http://no.such.host.invalid/api?token=opensesame", ""),
    ],
)
def test_no_secret_is_in_what_went_wrong(environment: Set, url: str, key: str) -> None:
    environment(PREFECT_API_URL=url, PREFECT_API_KEY=key)
    said = announce("/data/run", "run")
    assert said.startswith("not announced, the watcher will find the run: ")
    assert "opensesame" not in said


def test_its_line_goes_where_loreline_s_other_caches_are(environment: Set, tmp_path: Path) -> None:
    assert announce_log() == cache_dir() / "announce.log"
    for cache in ("", "not/absolute"):
        environment(XDG_CACHE_HOME=cache, HOME=str(tmp_path))
        assert announce_log() == cache_dir() / "announce.log"


def test_a_name_that_is_no_text_leaves_a_line_all_the_same(environment: Set, tmp_path: Path) -> None:
    """File names may be any bytes."""
    from loreline import announce as module

    command = [sys.executable, "-S", module.__file__, b"/data/\xff", b"\xff", "5"]
    with Recorder(422).running() as server:
        environment(PREFECT_API_URL=server.url, XDG_CACHE_HOME=str(tmp_path))
        subprocess.run(command, check=True)
    assert "/data/\\udcff: not announced" in (tmp_path / "loreline" / "announce.log").read_text()


@pytest.mark.parametrize(("status", "found"), [(204, None), (401, "the server answers 401; set PREFECT_API")])
def test_what_would_become_of_an_announcement_is_known_beforehand(
    environment: Set, status: int, found: str | None
) -> None:
    with Recorder(status).running() as server:
        environment(PREFECT_API_URL=server.url, PREFECT_API_KEY=SECRET)
        why = server_problem()
    assert why is None if found is None else (why or "").startswith(found)
    assert server.posted[0].headers["Authorization"] == f"Bearer {SECRET}"


def test_a_server_that_does_not_answer_is_not_waited_for_for_long(environment: Set) -> None:
    with Recorder(delay=3).running() as server:
        environment(PREFECT_API_URL=server.url)
        assert (server_problem(patience=0.2) or "").endswith(
            "can the server of PREFECT_API_URL be reached from here?"
        )
