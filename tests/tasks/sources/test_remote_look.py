"""A look at a run on the Hub or in MLflow: what would be taken, ended or not, and no weights downloaded."""

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save
from tasks.parameters.registration import RegisterParams

from tasks.base.errors import BadInput, Unavailable
from tasks.sources import hub_download
from tasks.sources.sighting import Sighting, sight
from tests.support.hub_server import Handler, Hub, Repo
from tests.support.mlflow_runs import log_run
from tests.support.sightings import HOUR, back, finished
from tests.support.tiny import write_checkpoint

# --- the Hub ---------------------------------------------------------------------------------------------


class Dated(Handler):
    """Says when every commit was made, as the Hub does."""

    minutes_old: float = 10

    def json(self, value: Any) -> None:
        if "sha" in value:
            made = datetime.now(UTC) - timedelta(minutes=self.minutes_old)
            value = {**value, "lastModified": made.isoformat(timespec="milliseconds").replace("+00:00", "Z")}
        super().json(value)


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repo]:
    """Run a Hub with an empty repository lab/model."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub_download, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(hub_download, "RETRIES", 2)
    monkeypatch.setattr(Dated, "minutes_old", 10)
    server = Hub()
    server.RequestHandlerClass = Dated
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    yield server.repos["lab/model"]
    server.stop()
    weights = [path for _, path, _ in server.requests if path.startswith("cdn/") or "safetensors" in path]
    assert weights == [], "a look downloads no weights"


def upload(step: int, steps: int | None = None, under: str = "") -> dict[str, bytes]:
    files = {"model.safetensors": save({"w": torch.full((2,), float(step))}), "config.json": b"{}"}
    if steps:
        files["trainer_state.json"] = json.dumps({"global_step": step, "max_steps": steps}).encode()
    return {f"{under}{name}": data for name, data in files.items()}


def see(source: str, quiet_for: float = HOUR) -> Sighting:
    return sight(source, quiet_for, RegisterParams())


def test_a_repository_without_a_state_has_ended_when_its_newest_commit_is_old(repo: Repo) -> None:
    repo.commit(upload(9), branch="step9")
    newest = repo.commit(upload(10), branch="step10")
    seen = see("hf://lab/model@step*")
    assert (seen.ended, seen.reason) == (
        False,
        f"still training: commit {newest[:10]}, last change 10 min ago",
    )
    old = see("hf://lab/model@step*", quiet_for=599)
    assert (old.ended, old.reason) == (True, f"unchanged for 10 min (commit {newest[:10]})")
    assert old.digest == seen.digest


@pytest.mark.parametrize(
    ("source", "under"), [("hf://lab/model@step*", ""), ("hf://lab/model", "checkpoint-{}/")]
)
def test_a_repository_has_ended_when_its_newest_state_says_so(repo: Repo, source: str, under: str) -> None:
    files: dict[str, bytes] = {}
    for step in (9, 10):
        files |= upload(step, 20, under.format(step))
        repo.commit(files, branch="main" if under else f"step{step}")
    going = see(source)
    assert (going.ended, going.reason) == (False, "still training: step 10 of 20, last change 10 min ago")
    files |= upload(20, 20, under.format(20))
    repo.commit(files, branch="main" if under else "step20")
    ended = see(source)
    assert (ended.ended, ended.reason) == (True, "training state says so (step 20 of 20)")
    assert ended.digest != going.digest


def test_a_branch_that_moves_changes_the_digest_and_another_does_not(repo: Repo) -> None:
    repo.commit(upload(9), branch="step9")
    before = see("hf://lab/model@step*").digest
    repo.commit(upload(1), branch="main")
    assert see("hf://lab/model@step*").digest == before
    repo.commit(upload(8), branch="step9")
    assert see("hf://lab/model@step*").digest != before


def test_offline_what_the_cache_heard_of_has_ended(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    repo.commit(upload(9, under="checkpoint-9/"), branch="main")
    online = see("hf://lab/model")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    offline = see("hf://lab/model")
    assert offline.ended
    assert offline.digest == online.digest


def test_a_repository_that_cannot_be_looked_at(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match="no such repository"):
        see("hf://lab/other")
    repo.commit(upload(9), branch="main")
    with pytest.raises(BadInput, match="has no checkpoint-N folder"):
        see("hf://lab/model")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(Unavailable, match="cannot be reached"):
        see("hf://lab/model")


# --- MLflow, in a database file (test_mlflow_run.py asks a server) ---------------------------------------


def test_a_run_that_mlflow_thinks_is_running_has_ended_when_its_files_are_old(
    store: RegisterParams, tmp_path: Path
) -> None:
    """A training process that was killed tells MLflow nothing."""
    output = finished(tmp_path, 10, 20)
    run = log_run(store, output, status=None)
    source = f"mlflow:/runs/{run}/checkpoints"
    [artifacts] = Path(os.environ["LORELINE_HOME"]).glob(f"mlartifacts/{run}/artifacts/checkpoints")
    os.utime(artifacts / "checkpoint-20" / "config.json")
    running = sight(source, HOUR, store)
    assert (running.ended, running.reason) == (
        False, "still training: the MLflow run is RUNNING, last change 0 s ago",
    )  # fmt: skip
    back(artifacts, 2 * HOUR)
    quiet = sight(source, HOUR, store)
    assert (quiet.ended, quiet.reason) == (True, "unchanged for 2 h (the MLflow run is RUNNING)")
    assert quiet.digest == running.digest
    write_checkpoint(artifacts, 30)
    assert sight(source, HOUR, store).digest != quiet.digest
