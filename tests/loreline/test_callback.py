"""MergeAfterTraining announces the end of a run, and training is none the worse for it, whatever happens."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from loreline import MergeAfterTraining
from loreline.callback import announce_detached, run_name
from tasks.base.directories import cache_dir
from tests.support.announcements import Recorder, announcing, outcome
from tests.support.server_process import until

ROOT = Path(__file__).parents[2]
PASSWORD = "opensesame"


@pytest.fixture
def black_hole(no_server: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Configure a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{listening.getsockname()[1]}/api")
        yield listening


def end_training(run: Path, first: bool = True) -> float:
    """Call the callback as the Trainer does; return the seconds that it took."""
    start = time.monotonic()
    state = TrainerState(is_world_process_zero=first)
    MergeAfterTraining().on_train_end(TrainingArguments(str(run), use_cpu=True), state, TrainerControl())
    return time.monotonic() - start


@pytest.mark.slow
def test_training_ends_at_once_when_the_server_never_answers(
    black_hole: socket.socket, run: Path, tmp_path: Path
) -> None:
    script = [sys.executable, str(ROOT / "tests" / "support" / "small_run.py"), str(run)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(script, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as training:  # fmt: skip
        said, _ = training.communicate(timeout=120)  # returns when every holder of the pipe has gone
    assert training.returncode == 0, said
    (left,) = announcing(run)
    assert left.create_time() < float(said.split()[-1])
    assert os.getsid(left.pid) not in (os.getsid(0), training.pid)


def test_a_slow_server_delays_nothing_and_is_waited_for_elsewhere(
    no_server: None, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Recorder(delay=3).running() as server:
        monkeypatch.setenv("PREFECT_API_URL", server.url)
        assert end_training(run) < 1
        assert outcome().endswith(f" {run}: announced\n")
    assert [event["payload"]["run"] for event in server.posted[0].events] == [str(run)]


def test_no_answer_in_time_is_a_line_and_the_process_is_gone(black_hole: socket.socket, run: Path) -> None:
    announce_detached(run, "x", deadline=2)
    assert outcome().endswith(f"{run}: not announced, the watcher will find the run: no answer within 2 s\n")
    until(lambda: not announcing(run), 30)


def test_what_announces_is_gone_at_its_deadline(no_server: None, run: Path) -> None:
    cache_dir().mkdir(parents=True, exist_ok=True)
    os.mkfifo(cache_dir() / "announce.log")  # opening it to write waits for a reader that never comes
    announce_detached(run, "x", deadline=2)
    assert len(announcing(run)) == 1
    until(lambda: not announcing(run), 30)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://user:opensesame@127.0.0.1:1/api", "Connection refused"),
        (None, "PREFECT_API_URL is not set in the environment of the training"),
    ],
)
def test_without_a_server_one_line_says_so(
    url: str | None, why: str, no_server: None, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if url:
        monkeypatch.setenv("PREFECT_API_URL", url)
    assert end_training(run) < 1
    said = outcome()
    told = f"{run}: not announced, the watcher will find the run: {why}"
    assert re.fullmatch(r"[^ ]+ " + re.escape(told) + ".*\n", said)
    assert PASSWORD not in said
    assert not list(Path(os.environ["PREFECT_HOME"]).glob("*.db")), "a server was started"


def test_the_training_s_own_log_warns_when_no_server_is_set(
    no_server: None, run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A Prefect profile used to be read: whoever relied on it must not find out from silence."""
    end_training(run)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "PREFECT_API_URL is not set" in record.message


def begin_training(run: Path, first: bool = True) -> float:
    """Call the callback as the Trainer does; return the seconds that it took."""
    start = time.monotonic()
    state = TrainerState(is_world_process_zero=first)
    MergeAfterTraining().on_train_begin(TrainingArguments(str(run), use_cpu=True), state, TrainerControl())
    return time.monotonic() - start


@pytest.mark.parametrize(
    ("url", "why"),
    [
        (None, "PREFECT_API_URL is not set in the environment of the training (a Prefect profile is not read)"),
        ("http://user:opensesame@127.0.0.1:1/api", "Connection refused; can the server of PREFECT_API_URL be reached from here?"),
    ],
)  # fmt: skip
def test_one_line_says_at_the_start_that_the_end_cannot_be_announced(
    url: str | None, why: str, no_server: None, run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:  # fmt: skip
    if url:
        monkeypatch.setenv("PREFECT_API_URL", url)
    begin_training(run, first=False)
    begin_training(run)
    until(lambda: bool(caplog.records), 30)
    (record,) = caplog.records
    said = f"{run}: its end cannot be announced now, the watcher will find the run: {why}"
    assert (record.levelname, record.message) == ("WARNING", said)


def test_nothing_is_said_at_the_start_where_the_server_takes_an_announcement_of_nothing(
    no_server: None, run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with Recorder().running() as server:
        monkeypatch.setenv("PREFECT_API_URL", server.url)
        begin_training(run)
        until(lambda: bool(server.posted), 30)
    assert [(posted.target, posted.events) for posted in server.posted] == [("/api/events", [])]
    assert not caplog.records


def test_a_server_that_never_answers_does_not_hold_the_start_up(black_hole: socket.socket, run: Path) -> None:
    assert begin_training(run) < 1


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
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    end_training(run)
    assert "PREFECT_API_URL is not set" in outcome()


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
