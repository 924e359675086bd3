"""`loreline ui` shows what is there, says which port is taken, and ends in order when the terminal says so."""

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest
import yaml

from tests.support.server_process import free_port
from tests.support.servers import Servers, until

pytestmark = pytest.mark.servers
# a background job ignores it
HEARING = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
UI = [sys.executable, "-c", f"{HEARING}; from flows.cli import main; main()", "ui"]
PARAMS = {
    "fetch": {"source": "runs/none"},
    "evaluate": {"tasks": ["t"], "primary": "t/nll"},
    "register": {"name": "demo"},
}


@pytest.fixture
def env(servers: Servers, tmp_path: Path) -> dict[str, str]:
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    return servers.prefect.env | {
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "LORELINE_HOME": str(tmp_path / "state"),
        "MLFLOW_PORT": str(free_port()),
    }


def test_it_serves_the_store_of_runs_here_until_ctrl_c(env: dict[str, str], tmp_path: Path) -> None:
    page, log = f"http://127.0.0.1:{env['MLFLOW_PORT']}", tmp_path / "log"
    with log.open("wb") as said:
        showing = subprocess.Popen(
            UI, cwd=tmp_path, env=env, stdout=said, stderr=said, start_new_session=True
        )
    until(lambda: page in log.read_text() or showing.poll() is not None)
    assert showing.poll() is None, log.read_text()
    with urllib.request.urlopen(f"{page}/ajax-api/2.0/mlflow/experiments/get?experiment_id=0", timeout=30) as answer:  # fmt: skip
        assert b"Default" in answer.read()
    family = psutil.Process(showing.pid).children(recursive=True)
    assert family
    os.killpg(showing.pid, signal.SIGINT)  # as a terminal does
    assert showing.wait(30) == 0
    assert log.read_text().splitlines() == [f"MLflow: {page}; Ctrl-C stops what was started here"]
    assert not [process for process in family if _lives(process)]


def _lives(process: psutil.Process) -> bool:
    """Tell whether a process runs; one that has ended may wait for its parent to hear of it."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_taken_port_is_named_with_what_takes_another(env: dict[str, str], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", int(env["MLFLOW_PORT"]))):
        done = subprocess.run(UI, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == f"error: 127.0.0.1:{env['MLFLOW_PORT']}: another program listens there; set MLFLOW_PORT to another port\n"  # fmt: skip
