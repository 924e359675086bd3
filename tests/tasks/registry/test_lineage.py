import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tasks.registry.lineage import dvc_hash, git_commit, lineage


def call(where: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=where, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    directory = tmp_path / "project" / "artifacts" / "merged"
    (directory / "figures").mkdir(parents=True)
    (directory / "model.safetensors").write_bytes(b"weights")
    (directory / "config.json").write_text("{}")
    (directory / "figures" / "ünï.png").write_bytes(b"png")
    (directory / "notes.tmp").write_text("ignored")
    return directory


def test_hash_is_what_dvc_records(merged: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    call(project, "git", "init", "-q")
    call(project, sys.executable, "-m", "dvc", "init", "-q")
    (project / ".dvcignore").write_text("*.tmp\n")
    before = dvc_hash(merged)
    call(project, sys.executable, "-m", "dvc", "add", "-q", "artifacts/merged")
    recorded = yaml.safe_load((project / "artifacts" / "merged.dvc").read_text())["outs"][0]["md5"]
    assert before == dvc_hash(merged) == recorded
    assert recorded.endswith(".dir")
    (merged / "config.json").unlink()
    assert dvc_hash(merged) != recorded


def test_commit_is_the_one_that_is_checked_out(merged: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    call(project, "git", "init", "-q")
    assert git_commit(merged) is None
    call(
        project,
        "git",
        "-c",
        "user.name=a",
        "-c",
        "user.email=a@b",
        "commit",
        "-q",
        "--allow-empty",
        "-m",
        "x",
    )
    assert git_commit(merged) == call(project, "git", "rev-parse", "HEAD")


def test_outside_repositories_nothing_is_claimed(merged: Path) -> None:
    assert lineage(merged) == {}


def test_without_git_installed_there_is_no_commit(merged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert git_commit(merged) is None


def test_trouble_in_dvc_does_not_stop_a_registration(
    merged: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "project" / ".dvc").mkdir()
    (tmp_path / "project" / ".dvc" / "config").write_text("[core\n")
    assert dvc_hash(merged) is None
    assert "registered without its DVC hash" in caplog.text
