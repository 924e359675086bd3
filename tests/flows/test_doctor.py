"""The doctor beside real servers, beside none, and where nothing answers."""

import http.server
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.doctor import DOCTOR_DEADLINE_S, check_prefect, doctor, exit_code
from tasks.doctor.finding import Finding
from tests.support.dvc_project import init_git
from tests.support.release_0_1_0 import add_prefect_rows, unpack_project
from tests.support.servers import ON_POSTGRESQL, PrefectServer, prefect_server
from tests.support.tiny_world import write_world


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    with prefect_server(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def silent() -> Iterator[str]:
    """Give the address of a server that takes everything and answers nothing."""
    with socket.socket() as swallowing:
        swallowing.bind(("127.0.0.1", 0))
        swallowing.listen()
        yield f"http://127.0.0.1:{swallowing.getsockname()[1]}"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Be in a project, with no server configured."""
    write_world(tmp_path / "world")
    (tmp_path / "params.yaml").write_text(
        "fetch: {source: runs/a}\nevaluate: {tasks: [likely], primary: likely/acc, include_path: world/tasks}\n"
        "watch: {roots: [runs/*]}\n"
    )
    init_git(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / ".prefect"))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setattr("flows.doctor.DOCTOR_DEADLINE_S", 60.0)  # beside other tests a machine may be slow
    return tmp_path


@pytest.mark.parametrize(
    ("findings", "code"),
    [
        ([], 0),
        ([Finding("Disk", "x", "small", "warning")], 0),
        ([Finding("Doctor", "registry", "no answer within 13 s", "warning")], 1),
        (
            [Finding("Doctor", "registry", "not reached", "warning"), Finding("GPU", "x", "none", "problem")],
            2,
        ),
        ([Finding("Doctor", "git and DVC", "a file: unreadable", "problem")], 2),
    ],
)
def test_the_exit_code_tells_a_problem_from_no_answer(findings: list[Finding], code: int) -> None:
    assert exit_code(findings) == code


def test_before_the_first_run_nothing_is_a_problem_and_nothing_is_made(
    project: Path, own_state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(project.rglob("*"))
    code = doctor(Path("params.yaml"))
    said = capsys.readouterr().out
    assert code == 0, said
    assert "PREFECT_API_URL is not set" in said
    assert "mlflow.db will be made by the first run" in said
    assert list(own_state.iterdir()) == []
    assert [path for path in sorted(project.rglob("*")) if ".prefect" not in path.parts] == before
    assert not list(project.rglob("*.db"))


def test_unreadable_parameters_are_a_problem_and_the_rest_is_looked_at(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "params.yaml").write_text("fetch: {sauce: runs/a}\n")
    code = doctor(Path("params.yaml"))
    said = capsys.readouterr().out
    assert code == 2
    assert "did you mean source?" in said
    assert "as in constraints.txt" in said


@pytest.mark.servers
@pytest.mark.skipif(ON_POSTGRESQL, reason="the rows are SQLite's")
def test_what_release_0_1_left_in_prefect_is_named_with_what_removes_it(
    project: Path, server: PrefectServer, tmp_path: Path
) -> None:
    add_prefect_rows(
        unpack_project(tmp_path / "old"), Path(server.store.removeprefix("sqlite+aiosqlite:///"))
    )

    def left() -> list[str]:
        return sorted(name for name, found in found_there(server.api_url) if "of release 0.1" in found)

    assert left() == ["after-training/merge", "promote/promote", "training ended", "watch/watch"]
    for each in server.post("deployments/filter"):  # as prefect deployment delete does
        if each["name"] in ("watch", "merge", "promote"):
            server.delete(f"deployments/{each['id']}")
    assert left() == ["training ended"]
    for each in server.post("automations/filter"):  # as prefect automation delete does
        server.delete(f"automations/{each['id']}")
    assert left() == []


def test_a_real_server_is_seen_with_what_is_wrong_there(
    project: Path, server: PrefectServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", server.api_url)
    limit, flow = "loreline-test-cpu", server.post("flows/", name="watch")["id"]
    server.post("v2/concurrency_limits/", name=limit, limit=1, active_slots=1)
    code = doctor(Path("params.yaml"))
    said = capsys.readouterr().out
    assert code == 0, said
    assert f"{server.api_url}\n" in said
    assert "there is no such deployment" in said
    assert f"prefect gcl update {limit} --active-slots 0" in said
    assert re.search(r"Prefect server +within \d s of this machine's", said)
    schedule = {"schedule": {"cron": "0 3 * * *", "timezone": "Europe/Berlin"}, "active": True}
    server.post("deployments/", name="demo@gpu1", flow_id=flow, schedules=[schedule])
    server.post("flow_runs/", flow_id=flow, name="quick-fox", state={"type": "RUNNING"})
    later = found_there(server.api_url)
    assert ("watch/demo@gpu1", "nobody asked for its runs lately (0 3 * * * Europe/Berlin)") in later
    assert ("flow runs", "1 running") in later
    assert limit not in dict(later)


def test_a_server_that_is_no_prefect_server_is_named(project: Path) -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as stranger:
        threading.Thread(target=stranger.serve_forever, daemon=True).start()
        ((_, told), *_) = found_there(f"http://bob:hunter2@127.0.0.1:{stranger.server_port}/api")
        stranger.shutdown()
    assert "is no Prefect server, or refuses" in told
    assert "hunter2" not in told


@pytest.mark.slow
def test_servers_that_swallow_everything_are_named_in_time(
    project: Path, silent: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("flows.doctor.DOCTOR_DEADLINE_S", DOCTOR_DEADLINE_S)
    for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI"):
        monkeypatch.setenv(name, silent)
    started = time.monotonic()
    doctor(Path("params.yaml"))
    assert time.monotonic() - started < 15
    assert "All is well" not in capsys.readouterr().out
    assert found_there(silent) == [("server", f"{silent} does not answer")]


def found_there(url: str) -> list[tuple[str, str]]:
    """Look at one Prefect server, in this process."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: url}):
        return [(finding.subject, finding.found) for finding in check_prefect()]
