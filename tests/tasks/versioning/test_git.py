"""What git cannot be used for is said with what would change that."""

from pathlib import Path

import pytest

from tasks.versioning.git import GitRefused, head, unusable
from tasks.versioning.git import git as ask
from tests.support.dvc_project import commit_all, git, init_git, write_project


def test_each_reason_why_there_is_nothing_to_commit_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_project(tmp_path / "project")
    assert unusable(root) == ("not a git repository", "run git init and commit")
    init_git(root)
    assert unusable(root) == ("the git repository has no commit yet", "make one")
    assert unusable(root / ".git") == ("not in a git work tree", "run it in a checkout")
    commit_all(root)
    assert unusable(root) is None
    (root / ".git" / "config").write_text("[core")
    assert "bad config line" in str(unusable(root))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert unusable(root) == ("git is not installed", "install it")


def test_git_s_refusal_is_one_sentence_without_secrets(tmp_path: Path) -> None:
    root = commit_all(init_git(write_project(tmp_path / "project")))
    with pytest.raises(GitRefused, match=r"project: git remote says: .*'http://host/x'") as told:
        ask(root, "remote", "get-url", "http://me:secret@host/x")
    assert "\n" not in str(told.value)
    assert "secret" not in str(told.value)


def test_the_head_is_the_commit_that_is_checked_out(tmp_path: Path) -> None:
    root = commit_all(init_git(write_project(tmp_path / "project")))
    assert head(root / "package") == git(root, "rev-parse", "main")
