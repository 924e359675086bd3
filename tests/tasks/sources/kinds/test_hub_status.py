"""How a run on the Hub looks to the watcher: what would be taken, ended or not, and no weights downloaded."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save

from tasks.base import hub_client
from tasks.base.errors import BadInput, Unavailable
from tasks.parameters.registration import RegisterParams
from tasks.sources.addresses import observe
from tasks.sources.run_status import RunStatus
from tests.support.ended_runs import HOUR, RECORDED_FILES
from tests.support.hub_server import Handler, Hub, Repo


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
    monkeypatch.setattr(hub_client, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(hub_client, "RETRIES", 2)
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


def see(source: str, quiet_for: float = HOUR) -> RunStatus:
    return observe(source, quiet_for, RegisterParams())


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


def test_a_run_has_the_digest_that_it_always_had(repo: Repo) -> None:
    """Recorded at 75a5440: with another one, every run would be merged again."""
    for step in (10, 9):
        repo.commit({**RECORDED_FILES, "n": b"%d" % step}, branch=f"step{step}")
    repo.commit({f"checkpoint-3/{name}": data for name, data in RECORDED_FILES.items()}, branch="main")
    recorded = {
        "hf://lab/model@step*": "0e0f27bb8ad169679478ec988afcf66f864a9907789c4b1642ae75a619372941",
        "hf://lab/model": "9371b69390a84a1c23780c622dd1a8b2e41f5488d1a94a689fe05c19ca2121ad",
    }
    assert {source: see(source).digest for source in recorded} == recorded
