"""A cron deployment really gets its runs from a real server: what wrong pins of Prefect's needs break silently."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
Ask = Callable[..., Any]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "prefect").mkdir()
    return {
        **os.environ, "PREFECT_HOME": str(tmp_path / "prefect"), "PORT": str(port), "PYTHONPATH": str(ROOT),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api", "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1",
    }  # fmt: skip


@pytest.fixture
def ask(environment: dict[str, str]) -> Iterator[Ask]:
    """Start a Prefect server; yield a function that posts to its API."""
    command = ["prefect", "server", "start", "--host", "127.0.0.1", "--port", environment["PORT"]]
    server = subprocess.Popen(
        [sys.executable, "-m", *command],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def post(path: str, **body: object) -> Any:
        request = urllib.request.Request(
            f"{environment['PREFECT_API_URL']}/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )  # fmt: skip
        return json.load(urllib.request.urlopen(request, timeout=10))

    try:
        until(lambda: post("deployments/filter") == [])
        yield post
    finally:
        server.terminate()
        server.wait()


def until(condition: Callable[[], bool], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except OSError:
            pass
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.5)


def test_serving_schedules_runs(ask: Ask, environment: dict[str, str]) -> None:
    code = "from flows.cli import main; main()"
    command = [sys.executable, "-c", code, "serve", "--cron", "0 3 * * *"]
    serving = subprocess.Popen(
        command, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        until(lambda: len(ask("deployments/filter")) == 1)
        deployment = ask("deployments/filter")[0]
        assert deployment["name"] == "scheduled"
        assert deployment["schedules"][0]["schedule"]["cron"] == "0 3 * * *"
        until(lambda: len(ask("flow_runs/filter")) > 1)
        assert all(
            " 03:00" in run["expected_start_time"].replace("T", " ") for run in ask("flow_runs/filter")
        )
    finally:
        serving.terminate()
        serving.wait()


def test_the_team_s_deployment_file_is_accepted(ask: Ask, environment: dict[str, str]) -> None:
    def prefect(*arguments: str) -> None:
        command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
        result = subprocess.run(
            command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stdout + result.stderr

    prefect("work-pool", "create", "loreline", "--type", "process")
    prefect("deploy", "--all")
    assert [deployment["name"] for deployment in ask("deployments/filter")] == ["nightly"]
