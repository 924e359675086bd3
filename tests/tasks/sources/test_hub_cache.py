"""The Hub's cache: what is there is not downloaded again, works offline, is checked, and leads nowhere else."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants

from tasks.base.errors import BadInput, LorelineError, Unavailable
from tasks.checkpoints.layout import read_tensors
from tests.support.hub_checkpoints import REPO, checkpoint, download, environment, restore, value_of
from tests.support.hub_server import Hub


def test_after_a_failed_run_only_what_is_missing_is_downloaded(server: Hub) -> None:
    for step in (1, 2):
        server.repos["lab/model"].commit(checkpoint(step), branch=f"step{step}")
    second = server.repos["lab/model"].branches["step2"]
    server.faults = {f"HEAD lab/model/resolve/{second}/model": [404]}
    with pytest.raises(Unavailable, match="HTTP 404"):
        download(f"{REPO}@step*")
    first = server.repos["lab/model"].branches["step1"]
    before = len(server.asked(f"resolve/{first}"))
    assert [value_of(c.directory) for c in download(f"{REPO}@step*")] == [1.0, 2.0]
    assert len(server.asked(f"resolve/{first}")) == before > 0


def test_what_the_cache_holds_is_not_touched(server: Hub, capfd: pytest.CaptureFixture[str]) -> None:
    """It may be a read-only one that a team shares."""
    server.repos["lab/model"].commit(checkpoint(1), branch="step1")
    [only] = download(f"{REPO}@step*")
    before = {path: path.lstat().st_mtime_ns for path in Path(constants.HF_HUB_CACHE).rglob("*")}
    capfd.readouterr()
    assert restore(only.address) == only.directory
    assert capfd.readouterr() == ("", "")  # nor is there a progress bar
    assert {path: path.lstat().st_mtime_ns for path in Path(constants.HF_HUB_CACHE).rglob("*")} == before


def test_weights_in_the_store_that_repositories_share_are_read(server: Hub, tmp_path: Path) -> None:
    """Since huggingface_hub 2, Xet files lie in hub/blobs, and a repository's blobs are links to there."""
    files = checkpoint(1)
    shared = tmp_path / "hf" / "hub" / "blobs" / "ab" / ("ab" * 32)
    shared.parent.mkdir(parents=True)
    shared.write_bytes(files["model.safetensors"])
    (shared.parents[1] / ".huggingface-shared-blobs").write_text("1\n")
    server.xet["model.safetensors"] = shared.name
    server.repos["lab/model"].commit(files, branch="step1")
    [only] = download(f"{REPO}@step*")
    assert (only.directory / "model.safetensors").resolve() == shared
    assert not server.asked("GET cdn/")
    assert list(read_tensors(only.directory)) == ["w"]


def test_a_cache_that_cannot_be_written_is_named(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file"))
    server.repos["lab/model"].commit(checkpoint(1), branch="step1")
    with pytest.raises(LorelineError, match=r"cannot be stored \(.*\); make room, or set HF_HUB_CACHE"):
        download(f"{REPO}@step*")


# --- offline --------------------------------------------------------------------------------------


def test_offline_a_cached_run_needs_no_server(server: Hub, tmp_path: Path) -> None:
    """As a user sets it: in the environment of a new process; both kinds of run, and a pinned checkpoint."""
    repo = server.repos["lab/model"]
    for step in (1, 10, 9):
        repo.commit(checkpoint(step), branch=f"step{step}")
    repo.commit(checkpoint(3, under="checkpoint-3/"), branch="main")
    online = [str(c.address) for c in download(f"{REPO}@step*") + download(REPO)]
    server.stop()
    script = (
        "from tests.support.hub_checkpoints import *\n"
        f"run = download('{REPO}@step*') + download('{REPO}')\n"
        "assert all((restore(c.address) / 'model.safetensors').is_file() for c in run)\n"
        "print(*(c.address for c in run))"
    )
    offline = os.environ | environment(tmp_path) | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=offline, capture_output=True, text=True)
    assert done.stdout.split() == online, done.stderr


def test_offline_an_incomplete_snapshot_is_refused_by_name(
    server: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.repos["lab/model"].commit(checkpoint(1), branch="step1")
    [only] = download(f"{REPO}@step*")
    (only.directory / "config.json").unlink()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    server.requests.clear()
    for again in (lambda: restore(only.address), lambda: download(f"{REPO}@step*")):
        with pytest.raises(Unavailable, match=r"the cache lacks config\.json; unset HF_HUB_OFFLINE"):
            again()
    assert server.requests == []


def test_offline_what_was_never_looked_up_is_refused(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = server.repos["lab/model"].commit(checkpoint(1), branch="step1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(Unavailable, match="main: is not in the cache"):
        download(REPO)
    with pytest.raises(BadInput, match=r"step\*: no branch or tag .*there is none"):
        download(f"{REPO}@step*")
    with pytest.raises(Unavailable, match="the cache lacks the list of its files"):
        restore(f"{REPO}@{commit}")


# --- damage and lies ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_file_that_was_damaged_in_the_cache_is_refused(server: Hub, name: str) -> None:
    server.repos["lab/model"].commit(checkpoint(1), branch="step1")
    [only] = download(f"{REPO}@step*")
    blob = (only.directory / name).resolve()
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(data)
    with pytest.raises(BadInput, match=f"{name}: is damaged; remove {blob}"):
        restore(only.address)
    blob.unlink()
    assert value_of(restore(only.address)) == 1.0


def test_content_other_than_its_name_says_is_refused(server: Hub) -> None:
    server.repos["lab/model"].commit(checkpoint(1), branch="step1")
    server.etags["model.safetensors"] = "0" * 64
    with pytest.raises(BadInput, match=r"model\.safetensors: is damaged"):
        download(f"{REPO}@step*")


def test_file_names_that_leave_the_directory_are_not_followed(server: Hub, tmp_path: Path) -> None:
    evil = {
        "../escaped.json": b"{}",
        "../../../../escaped.json": b"{}",
        f"{tmp_path}/escaped.json": b"{}",
        "checkpoint-3/../../escaped.json": b"{}",
        "checkpoint-4/../../../../../escaped.json": b"{}",
    }
    repo = server.repos["lab/model"]
    repo.commit(checkpoint(3, under="checkpoint-3/") | evil, branch="main")
    repo.commit(checkpoint(1) | evil, branch="step1")
    assert [c.name for c in download(REPO) + download(f"{REPO}@step*")] == ["checkpoint-3", "step1"]
    assert not [path for path in tmp_path.rglob("*") if "escaped" in path.name]
    assert not server.asked("escaped")


def test_a_branch_whose_name_leaves_the_cache_is_not_followed(server: Hub, tmp_path: Path) -> None:
    repo = server.repos["lab/model"]
    repo.commit(checkpoint(1), branch="../../../escaped1")
    repo.commit(checkpoint(2), branch="step2")
    assert [c.name for c in download(f"{REPO}@*")] == ["step2"]
    assert not [path for path in tmp_path.rglob("*") if "escaped" in path.name]


def test_a_link_to_a_file_outside_the_cache_is_refused(server: Hub, tmp_path: Path) -> None:
    """The name of a blob is the Hub's ETag, which huggingface_hub takes as it comes."""
    (tmp_path / "secret.json").write_text("{}")
    server.repos["lab/model"].commit(checkpoint(1), branch="step1")
    server.etags["config.json"] = "../" * 4 + "secret.json"
    with pytest.raises(BadInput, match=r"config\.json: leads out of the Hub's cache"):
        download(f"{REPO}@step*")
