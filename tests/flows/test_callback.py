"""MergeAfterTraining tells Prefect that a run has ended, and training is none the worse for it, whatever happens."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from flows.announce import EVENT
from flows.callback import MergeAfterTraining, announce_detached, run_name
from tasks.base.directories import cache_dir
from tests.support.servers import Servers, until
from tests.support.small_run import train

ROOT = Path(__file__).parents[2]
PASSWORD = "opensesame"


@pytest.fixture
def no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Configure no server, whatever the machine's user has."""
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))


@pytest.fixture
def black_hole(no_server: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Configure a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{listening.getsockname()[1]}/api")
        yield listening


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Path]:
    """Return an output directory; nothing that announces it outlives the test."""
    run = tmp_path / "a run"
    yield run
    for process in announcing(run):
        process.kill()


def announcing(run: Path) -> list[psutil.Process]:
    """Return the processes that announce a run."""
    found = psutil.process_iter(["cmdline"])
    return [process for process in found if str(run) in (process.info["cmdline"] or [])]


def outcome() -> str:
    """Wait for the line that the announcing process leaves, and return it."""
    log = cache_dir() / "announce.log"
    until(lambda: log.exists() and log.read_text().endswith("\n"), 60)
    return log.read_text()


def end_training(run: Path, first: bool = True) -> float:
    """Call the callback as the Trainer does; return the seconds that it took."""
    start = time.monotonic()
    state = TrainerState(is_world_process_zero=first)
    MergeAfterTraining().on_train_end(TrainingArguments(str(run), use_cpu=True), state, TrainerControl())
    return time.monotonic() - start


def everything_in(directory: Path) -> dict[str, tuple[int, int]]:
    stats = {str(path): path.stat() for path in [directory, *directory.rglob("*")]}
    return {path: (stat.st_mtime_ns, stat.st_size) for path, stat in stats.items()}


@pytest.mark.servers
def test_the_end_of_a_training_run_is_an_event_on_the_server(
    servers: Servers, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in servers.prefect.env.items():
        monkeypatch.setenv(name, value)
    train(run, seed=0, steps=2, every=1)
    before = everything_in(run)

    def events() -> list[dict[str, Any]]:
        found = servers.prefect.post("events/filter", filter={"event": {"name": [EVENT]}})["events"]
        return [event for event in found if event["payload"]["run"] == str(run)]

    until(events, 60)
    (event,) = events()
    assert event["payload"] == {"run": str(run), "name": "a run"}
    assert event["resource"]["prefect.resource.id"] == f"loreline.run.{run}"
    assert outcome().endswith(f" {run}: announced\n")
    assert everything_in(run) == before


@pytest.mark.slow
def test_training_ends_at_once_when_the_server_never_answers(
    black_hole: socket.socket, run: Path, tmp_path: Path
) -> None:
    script = [sys.executable, str(ROOT / "tests" / "small_run.py"), str(run)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(script, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as training:  # fmt: skip
        said, _ = training.communicate(timeout=120)  # returns when every holder of the pipe has gone
    assert training.returncode == 0, said
    (left,) = announcing(run)
    assert left.create_time() < float(said.split()[-1])
    assert os.getsid(left.pid) not in (os.getsid(0), training.pid)


def test_what_announces_is_gone_at_its_deadline(no_server: None, run: Path) -> None:
    cache_dir().mkdir(parents=True)
    os.mkfifo(cache_dir() / "announce.log")  # opening it to write waits for a reader that never comes
    announce_detached(run, "x", deadline=2)
    assert len(announcing(run)) == 1
    until(lambda: not announcing(run), 30)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        (
            "http://user:opensesame@127.0.0.1:1/api",
            "not announced, the watcher will find the run: ConnectError",
        ),
        (None, "no Prefect server is configured (PREFECT_API_URL); the watcher will find the run"),
    ],
)
def test_without_a_server_one_line_says_so(
    url: str | None, why: str, no_server: None, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if url:
        monkeypatch.setenv("PREFECT_API_URL", url)
    assert end_training(run) < 1
    said = outcome()
    assert re.fullmatch(r"[^ ]+ " + re.escape(f"{run}: {why}") + ".*\n", said)
    assert PASSWORD not in said
    assert not list(Path(os.environ["PREFECT_HOME"]).glob("*.db")), "a server was started"


def test_nothing_is_left_to_reap_in_the_training_process(no_server: None, run: Path) -> None:
    before = psutil.Process().children()
    for _ in range(3):
        end_training(run)
    assert psutil.Process().children() == before


def test_only_the_first_process_of_a_world_announces(black_hole: socket.socket, run: Path) -> None:
    end_training(run, first=False)
    assert announcing(run) == []
    end_training(run)
    assert len(announcing(run)) == 1


def test_a_user_s_own_package_called_flows_does_not_matter(
    no_server: None, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("flows", "tasks", "prefect"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise SystemExit('the wrong package')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    end_training(run)
    assert "no Prefect server is configured" in outcome()


def test_what_cannot_be_started_is_one_warning(
    run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "executable", None)
    end_training(run)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert str(run) in caplog.text


@pytest.mark.parametrize(
    ("chosen", "name"), [(None, "run-7"), ("", "run-7"), ("/data/run-7", "run-7"), ("sft, second try", "sft, second try")]
)  # fmt: skip
def test_a_run_is_called_what_its_user_calls_it(chosen: str | None, name: str) -> None:
    assert run_name(chosen, Path("/data/run-7")) == name
