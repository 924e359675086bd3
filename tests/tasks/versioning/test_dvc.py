"""DVC waits for who holds its lock, and what it cannot do is one sentence."""

from pathlib import Path

import pytest
import zc.lockfile

from tasks.base.errors import BadInput, LorelineError, Unavailable
from tasks.versioning import dvc as running
from tests.support.dvc_project import dvc, write_project


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = write_project(tmp_path / "a project")
    dvc(root, "init", "--quiet", "--no-scm")
    return root


def test_a_lock_that_another_dvc_holds_is_waited_for(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    held = zc.lockfile.LockFile(str(root / ".dvc" / "tmp" / "lock"))

    def wait(seconds: float) -> None:
        waited.append(seconds)
        held.close()

    monkeypatch.setattr(running.time, "sleep", wait)
    running.dvc(root, "add", "mine.txt")
    assert waited == [running.LOCK_PAUSE_S]
    assert (root / "mine.txt.dvc").is_file()


@pytest.mark.slow
def test_a_lock_that_stays_busy_is_no_fault_of_the_user(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(running.time, "sleep", waited.append)
    monkeypatch.setattr(running, "LOCK_TRIES", 2)
    held = zc.lockfile.LockFile(str(root / ".dvc" / "tmp" / "lock"))
    try:
        with pytest.raises(Unavailable, match="dvc add failed: .*; run the same command again later"):
            running.dvc(root, "add", "mine.txt")
    finally:
        held.close()
    assert waited == [running.LOCK_PAUSE_S]
    assert not (root / "mine.txt.dvc").exists()


def test_a_failure_of_dvc_is_one_sentence_at_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its message speaks of dvc.lock, which is no lock."""
    monkeypatch.setattr(running.time, "sleep", lambda seconds: pytest.fail("waited"))
    (root / "dvc.lock").write_text("schema: [")
    with pytest.raises(LorelineError, match="dvc commit failed: .*dvc.lock") as caught:
        running.dvc(root, "commit", "--force")
    assert "\n" not in str(caught.value)


ODD = [
    "stages: [1]", "stages: x", "[1]", "stages: {a: [1]}", "stages: {a: {outs: 5}}", "stages: {a: {outs: [null]}}",
    "stages: {a: {outs: [artifacts/x], deps: [5]}}", "stages: {a: {outs: [artifacts/x], params: 5}}",
]  # fmt: skip
EMPTY = [
    "stages: {a: null}", "stages: {a: {outs: null}}", "stages: {a: {outs: [{}]}}", "stages:", "", "[]",
    "stages: {a: {outs: [artifacts/x], deps: null, params: [{}]}}",
]  # fmt: skip


@pytest.mark.parametrize("text", ODD)
def test_an_odd_pipeline_is_refused_in_a_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "dvc.yaml").write_text(text)
    with pytest.raises(BadInput, match="not readable as a pipeline"):
        running.needed_files(tmp_path)


@pytest.mark.parametrize("text", EMPTY)
def test_a_pipeline_may_leave_out_what_it_has_none_of(tmp_path: Path, text: str) -> None:
    (tmp_path / "dvc.yaml").write_text(text)
    assert running.needed_files(tmp_path) == []
