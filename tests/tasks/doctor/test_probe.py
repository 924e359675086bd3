import http.server
import socket
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate

import pytest

from tasks.doctor.probe import WAIT_S, Answer, clock_of, probe, unguarded


class Clock(http.server.BaseHTTPRequestHandler):
    ahead = 0.0

    def do_GET(self) -> None:
        self.send_response(401)
        self.end_headers()

    def date_time_string(self, timestamp: float | None = None) -> str:
        return formatdate(time.time() + self.ahead, usegmt=True)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Clock) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(("ahead", "level", "what"), [
    (0.0, "ok", "within"), (25.0, "ok", "within"), (90.0, "warning", "ahead of"), (-90.0, "warning", "behind"),
])  # fmt: skip
def test_a_server_s_clock_is_compared(
    server: str, ahead: float, level: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Clock, "ahead", ahead)
    answer = probe(server)
    assert answer is not None
    assert answer.status == 401  # it lives, whatever it thinks of us
    assert answer.ahead == pytest.approx(ahead, abs=2)
    finding = clock_of("MLflow server", answer)[0]
    assert (finding.level, what in finding.found) == (level, True)


def test_a_server_without_a_date_is_not_compared() -> None:
    assert clock_of("MLflow server", Answer(200, "", None)) == []


def test_silence_and_a_closed_port_are_no_answer_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert WAIT_S <= 3
    monkeypatch.setattr("tasks.doctor.probe.WAIT_S", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        started = time.monotonic()
        assert probe(f"http://127.0.0.1:{silent.getsockname()[1]}") is None
    assert probe("http://127.0.0.1:1") is None
    assert time.monotonic() - started < 3


@pytest.mark.parametrize(
    ("status", "warned"), [(200, True), (404, True), (401, False), (302, False), (500, False)]
)
def test_a_server_that_asks_for_no_password_is_warned_of(
    status: int, warned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = "0.0.0.0"  # this machine, by no loopback address
    monkeypatch.setattr(Clock, "do_GET", lambda self: (self.send_response(status), self.end_headers()))
    with http.server.ThreadingHTTPServer((host, 0), Clock) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        found = unguarded("Prefect", f"http://me:hunter2@{host}:{server.server_port}/api/", "admin/version")
        server.shutdown()
    assert [(each.level, "hunter2" in each.found) for each in found] == [("warning", False)] * warned


def test_a_server_that_only_this_machine_reaches_needs_no_password(server: str) -> None:
    assert unguarded("Registry", server, "x") == []
    assert unguarded("Registry", "http://nobody.invalid", "x") == []
    assert unguarded("Registry", "http://[nobody", "x") == []
