"""Runs on a Hub that answers badly, late or not at all, and without any network."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants

from tasks.base.errors import BadInput, Unavailable
from tasks.sources import hub_download
from tasks.sources.hub_download import download_checkpoint, download_run
from tests.support.hub_checkpoints import REPO, checkpoint, environment, value_of
from tests.support.hub_server import Hub

# --- a bad network --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "faults",
    [
        {"GET api/models/lab/model/refs": [429, 503]},
        {"GET api/models/lab/model/revision": [503, 429]},
        {"GET api/models/lab/model/tree": [503]},
        {"HEAD lab/model/resolve": [503]},
        {"GET cdn/": [503]},
        {"HEAD lab/model/resolve": [429], "GET cdn/": [503, 503]},
    ],
)
def test_429_and_503_are_waited_for(server: Hub, faults: dict[str, list[int | str]]) -> None:
    server.repos["lab/model"].commit(checkpoint(1), branch="step1")
    server.faults = faults
    [only] = download_run(f"{REPO}@step*")
    assert value_of(only.directory) == 1.0
    assert not any(server.faults.values())


def test_a_cut_download_is_resumed_where_it_stopped(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last whole chunk that huggingface_hub wrote."""
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 50_000)
    server.repos["lab/model"].commit(files := checkpoint(1, size=100_000), branch="step1")
    server.faults = {"GET cdn/": ["cut"]}
    [only] = download_run(f"{REPO}@step*")
    assert (only.directory / "model.safetensors").read_bytes() == files["model.safetensors"]
    assert [headers.get("Range") for headers in server.asked("GET cdn/")] == [None, "bytes=400000-"]


def test_after_a_failed_run_only_what_is_missing_is_downloaded(server: Hub) -> None:
    for step in (1, 2):
        server.repos["lab/model"].commit(checkpoint(step), branch=f"step{step}")
    second = server.repos["lab/model"].branches["step2"]
    server.faults = {f"HEAD lab/model/resolve/{second}/model": [404]}
    with pytest.raises(Unavailable, match="HTTP 404"):
        download_run(f"{REPO}@step*")
    first = server.repos["lab/model"].branches["step1"]
    before = len(server.asked(f"resolve/{first}"))
    assert [value_of(c.directory) for c in download_run(f"{REPO}@step*")] == [1.0, 2.0]
    assert len(server.asked(f"resolve/{first}")) == before > 0


def test_attempts_are_bounded(server: Hub) -> None:
    server.repos["lab/model"].commit(checkpoint(1), branch="step1")
    server.faults = {"GET api/models/lab/model/refs": [503] * 50}
    with pytest.raises(Unavailable, match="answers HTTP 503; try again later"):
        download_run(f"{REPO}@step*")
    assert len(server.requests) == hub_download.RETRIES + 1


def test_a_hub_that_is_gone_is_unavailable(server: Hub) -> None:
    server.stop()
    with pytest.raises(Unavailable, match=r"cannot be reached \(ConnectError\).*HF_HUB_OFFLINE=1"):
        download_run(f"{REPO}@step*")


def test_something_else_than_a_hub_is_unavailable(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as the page of a hotel's network: an answer, but not in JSON."""
    server.repos["lab/model"].commit(checkpoint(1), branch="step1")
    monkeypatch.setattr("tests.support.hub_server.json.dumps", lambda _: "<html>")
    with pytest.raises(Unavailable, match="the answers make no sense"):
        download_run(f"{REPO}@step*")


# --- offline --------------------------------------------------------------------------------------


def test_offline_a_cached_run_needs_no_server(server: Hub, tmp_path: Path) -> None:
    """As a user sets it: in the environment of a new process; both kinds of run, and a pinned checkpoint."""
    repo = server.repos["lab/model"]
    for step in (1, 10, 9):
        repo.commit(checkpoint(step), branch=f"step{step}")
    repo.commit(checkpoint(3, under="checkpoint-3/"), branch="main")
    online = [str(c.source) for c in download_run(f"{REPO}@step*") + download_run(REPO)]
    server.stop()
    script = (
        "from tasks.sources.hub_download import *\n"
        f"run = download_run('{REPO}@step*') + download_run('{REPO}')\n"
        "assert all((download_checkpoint(c.source) / 'model.safetensors').is_file() for c in run)\n"
        "print(*(c.source for c in run))"
    )
    offline = os.environ | environment(tmp_path) | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=offline, capture_output=True, text=True)
    assert done.stdout.split() == online, done.stderr


def test_offline_an_incomplete_snapshot_is_refused_by_name(
    server: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.repos["lab/model"].commit(checkpoint(1), branch="step1")
    [only] = download_run(f"{REPO}@step*")
    (only.directory / "config.json").unlink()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    server.requests.clear()
    for again in (lambda: download_checkpoint(only.source), lambda: download_run(f"{REPO}@step*")):
        with pytest.raises(Unavailable, match=r"the cache lacks config\.json; unset HF_HUB_OFFLINE"):
            again()
    assert server.requests == []


def test_offline_what_was_never_looked_up_is_refused(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = server.repos["lab/model"].commit(checkpoint(1), branch="step1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(Unavailable, match="main: is not in the cache"):
        download_run(REPO)
    with pytest.raises(BadInput, match=r"step\*: no branch or tag .*there is none"):
        download_run(f"{REPO}@step*")
    with pytest.raises(Unavailable, match="the cache lacks the list of its files"):
        download_checkpoint(f"{REPO}@{commit}")


def test_what_the_cache_holds_is_not_touched(server: Hub, capfd: pytest.CaptureFixture[str]) -> None:
    """It may be a read-only one that a team shares."""
    server.repos["lab/model"].commit(checkpoint(1), branch="step1")
    [only] = download_run(f"{REPO}@step*")
    before = {path: path.lstat().st_mtime_ns for path in Path(constants.HF_HUB_CACHE).rglob("*")}
    capfd.readouterr()
    assert download_checkpoint(only.source) == only.directory
    assert capfd.readouterr() == ("", "")  # nor is there a progress bar
    assert {path: path.lstat().st_mtime_ns for path in Path(constants.HF_HUB_CACHE).rglob("*")} == before


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_file_that_was_damaged_in_the_cache_is_refused(server: Hub, name: str) -> None:
    server.repos["lab/model"].commit(checkpoint(1), branch="step1")
    [only] = download_run(f"{REPO}@step*")
    blob = (only.directory / name).resolve()
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(data)
    with pytest.raises(BadInput, match=f"{name}: is damaged; remove {blob}"):
        download_checkpoint(only.source)
    blob.unlink()
    assert value_of(download_checkpoint(only.source)) == 1.0
