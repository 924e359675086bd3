"""What the callback announces arrives at a real Prefect server; its old name still works."""

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from loreline import EVENT
from tests.support.announcements import outcome
from tests.support.servers import Servers, until
from tests.support.small_run import train


def everything_in(directory: Path) -> dict[str, tuple[int, int]]:
    stats = {str(path): path.stat() for path in [directory, *directory.rglob("*")]}
    return {path: (stat.st_mtime_ns, stat.st_size) for path, stat in stats.items()}


@pytest.mark.servers
def test_the_end_of_a_training_run_is_an_event_on_the_server(
    servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "a run"
    for name, value in servers.prefect.env.items():
        monkeypatch.setenv(name, value)
    train(run, seed=0, steps=2, every=1)
    before = everything_in(run)

    def events() -> list[dict[str, Any]]:
        found = servers.prefect.post("events/filter", filter={"event": {"name": [EVENT]}})["events"]
        return [event for event in found if event["payload"]["run"] == str(run)]

    until(events, 60)
    (event,) = events()
    told = {"run": str(run), "name": "a run", "host": socket.gethostname(), "project": ""}
    assert event["payload"] == told
    assert event["resource"]["prefect.resource.id"] == f"loreline.run.{run}"
    assert outcome().endswith(f" {run}: announced\n")
    assert everything_in(run) == before


def test_a_script_that_imports_it_from_flows_is_told_where_it_is_now(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text("from flows.callback import MergeAfterTraining\nprint(MergeAfterTraining.__module__)\n")
    env = {"PYTHONPATH": str(Path(__file__).parents[2])}
    said = subprocess.run([sys.executable, script], env=env, capture_output=True, text=True, check=True)
    assert said.stdout == "loreline.callback\n"
    assert f"{script}:1: DeprecationWarning" in said.stderr
    assert "from loreline import MergeAfterTraining" in said.stderr
