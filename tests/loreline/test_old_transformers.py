"""Training with transformers 4.50, with our torch but without Prefect: the callback announces the run."""

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from tests.support.announcements import Recorder, outcome
from tests.support.training_environment import TrainingEnvironment

ROOT = Path(__file__).parents[2]
TRANSFORMERS = "4.50.3"
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_server")]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> TrainingEnvironment:
    place = tmp_path_factory.mktemp("environment")
    try:
        return TrainingEnvironment(place, TRANSFORMERS)
    except subprocess.CalledProcessError as error:
        if "No matching distribution found" not in (error.stderr or ""):
            raise
        pytest.skip(f"the package index does not give transformers {TRANSFORMERS}: {error.stderr[-300:]}")


@pytest.fixture
def theirs(project: Path) -> Path:
    """Put a training script, and a copy of our package, beside what is called as ours."""
    shutil.copy(ROOT / "tests" / "support" / "foreign_training.py", project / "train.py")
    shutil.copytree(ROOT / "loreline", project / "loreline")
    return project


def train(environment: TrainingEnvironment, theirs: Path, run: Path) -> float:
    """Train as a user does; return for how many seconds the callback held training up."""
    said = subprocess.run(
        [environment.python, "train.py", run], cwd=theirs, env=os.environ, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    release, seconds = said.stdout.splitlines()[-1].split()
    assert release == TRANSFORMERS
    return float(seconds)


def test_the_end_of_training_is_announced(
    environment: TrainingEnvironment, theirs: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Recorder(delay=2).running() as server:
        monkeypatch.setenv("PREFECT_API_URL", server.url)
        monkeypatch.setenv("PREFECT_API_KEY", "key")
        assert train(environment, theirs, run) < 1
        assert outcome().endswith(f" {run}: announced\n")
    ((target, headers, (event,)),) = [posted for posted in server.posted if posted.events]
    assert (target, headers["Authorization"]) == ("/api/events", "Bearer key")
    told = {"run": str(run), "name": "a run", "host": socket.gethostname(), "project": ""}
    assert event["payload"] == told
    kept = sorted(path.name for path in (run.parent / ".a run.kept").iterdir())
    assert kept == ["checkpoint-1", "checkpoint-2", "mean-1", "mean-2"]


def test_nor_does_training_wait_for_a_server_that_is_not_there(
    environment: TrainingEnvironment, theirs: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    assert train(environment, theirs, run) < 1
    assert "Connection refused" in outcome()
