"""Stage version: dvc.lock says what ran, and nothing of the user's is touched."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
import zc.lockfile

from tasks import version_artifacts as module
from tasks.errors import BadInput, LorelineError, Unavailable
from tasks.params import Params, VersionParams, read_params
from tasks.version_artifacts import version_artifacts

STAGES = {"stages": {"merge": {"cmd": "true", "params": ["merge"], "outs": ["artifacts/merged"]}}}
PARAMS = {
    "fetch": {"source": "x"},
    "merge": {"method": "average"},
    "evaluate": {"tasks": ["t"], "primary": "t/nll"},
}


def run(root: Path, *command: str) -> str:
    return subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout


def dvc(root: Path, *arguments: str) -> str:
    return run(root, sys.executable, "-m", "dvc", *arguments)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a git and DVC repository with an output that DVC does not know yet."""
    for key, value in (("NAME", "t"), ("EMAIL", "t@example.invalid")):
        monkeypatch.setenv(f"GIT_AUTHOR_{key}", value)
        monkeypatch.setenv(f"GIT_COMMITTER_{key}", value)
    run(tmp_path, "git", "init", "--quiet", "--initial-branch", "main")
    dvc(tmp_path, "init", "--quiet")
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump(STAGES))
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    (tmp_path / ".gitignore").write_text("/artifacts/\n")
    run(tmp_path, "git", "add", ".")
    run(tmp_path, "git", "commit", "--quiet", "-m", "Start")
    (tmp_path / "artifacts" / "merged").mkdir(parents=True)
    (tmp_path / "artifacts" / "merged" / "model.safetensors").write_text("weights")
    return tmp_path


def params(root: Path, **version: bool) -> Params:
    tree = {**PARAMS, "version": version}
    (root / "params.yaml").write_text(yaml.safe_dump(tree))
    return read_params(root / "params.yaml")


def test_outputs_made_outside_dvc_become_its_own(root: Path) -> None:
    assert version_artifacts(params(root), root / "artifacts") == "recorded in dvc.lock"
    assert "up to date" in dvc(root, "status")
    assert "didn't change" in dvc(root, "repro")


def test_git_gets_dvc_lock_and_nothing_else(root: Path) -> None:
    (root / "mine.txt").write_text("staged")
    run(root, "git", "add", "mine.txt")
    (root / ".gitignore").write_text("/artifacts/\n# edited\n")
    assert "committed to git" in version_artifacts(params(root, git_commit=True), root / "artifacts")
    assert run(root, "git", "show", "--name-only", "--format=").split() == ["dvc.lock"]
    status = run(root, "git", "status", "--porcelain")
    assert "A  mine.txt" in status
    assert " M .gitignore" in status
    again = version_artifacts(params(root, git_commit=True), root / "artifacts")
    assert again == "recorded in dvc.lock"  # nothing new to commit


def test_outputs_are_pushed_to_the_remote(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    remote = tmp_path_factory.mktemp("remote")
    dvc(root, "remote", "add", "--default", "store", str(remote))
    assert "pushed" in version_artifacts(params(root, push=True), root / "artifacts")
    assert any(path.read_text() == "weights" for path in remote.rglob("*") if path.is_file())


def test_a_push_that_fails_loses_nothing(root: Path) -> None:
    with pytest.raises(Unavailable, match="dvc push failed: .*remote.*everything is kept, run dvc push"):
        version_artifacts(params(root, push=True), root / "artifacts")  # no remote is configured
    assert "up to date" in dvc(root, "status")


def test_other_parameters_than_params_yaml_s_are_not_recorded(root: Path) -> None:
    other = params(root).model_copy(update={"version": VersionParams(push=True)})
    assert version_artifacts(other, root / "artifacts").startswith("not versioned: the parameters")
    assert not (root / "dvc.lock").exists()


def test_without_dvc_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").write_text("stages: {}")
    assert "run dvc init" in version_artifacts(params(tmp_path), tmp_path / "artifacts")


def test_git_s_refusal_is_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / ".git" / "index.lock").touch()
    with pytest.raises(BadInput, match=r"version.git_commit: git add failed .*index.lock"):
        version_artifacts(params(root, git_commit=True), root / "artifacts")


def test_a_lock_that_another_dvc_holds_is_waited_for(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    held = zc.lockfile.LockFile(str(root / ".dvc" / "tmp" / "lock"))

    def wait(seconds: float) -> None:
        waited.append(seconds)
        held.close()

    monkeypatch.setattr(module.time, "sleep", wait)
    assert version_artifacts(params(root), root / "artifacts") == "recorded in dvc.lock"
    assert waited == [module.LOCK_PAUSE_S]


def test_a_failure_of_dvc_is_one_sentence_at_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its message speaks of dvc.lock, which is no lock."""
    monkeypatch.setattr(module.time, "sleep", lambda seconds: pytest.fail("waited"))
    (root / "dvc.lock").write_text("schema: [")
    with pytest.raises(LorelineError, match="dvc commit --force failed: .*dvc.lock") as caught:
        version_artifacts(params(root), root / "artifacts")
    assert "\n" not in str(caught.value)
