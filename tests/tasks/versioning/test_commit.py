"""Commits and tags for merged runs: one for each, whoever is killed, and nothing of the user's is touched."""

import os
import random
import threading
import time
from pathlib import Path

import pytest

from tasks.base.errors import BadInput, Unavailable
from tasks.versioning import commit as module
from tasks.versioning.commit import (
    Message,
    changed_files,
    check_branch,
    commit_files,
    plain_tag,
    tag,
    tag_names,
)
from tests.support.dvc_project import USER, commit_all, git, init_git, make_dirty, state, write_project
from tests.support.killing import Process, kill, spawn


def message(identity: str = "a" * 64, version: int = 1) -> Message:
    model = f"models:/demo/{version}"
    trailers = {"Loreline-Run": "r", "Loreline-Identity": identity, "Loreline-Model": model}
    return Message("Merge r by lore: PROMOTE", "It gains.", trailers)


@pytest.fixture(autouse=True)
def _user(monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in USER.items():
        monkeypatch.setenv(key, value)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return commit_all(init_git(write_project(tmp_path / "a project")))


@pytest.fixture
def lock(tmp_path: Path) -> dict[str, Path]:
    (tmp_path / "lock").write_text("locked\n")
    return {"dvc.lock": tmp_path / "lock"}


def test_a_commit_is_what_is_checked_out_with_the_files_in_it(root: Path, lock: dict[str, Path]) -> None:
    make_dirty(root)
    before = state(root)
    revision = commit_files(root, "merges", lock, message())
    assert state(root) == before
    assert git(root, "diff", "--name-status", "main", "merges") == "A\tdvc.lock"
    assert git(root, "show", "merges:dvc.lock") == "locked"
    assert git(root, "rev-parse", "merges", "merges^") == f"{revision}\n{git(root, 'rev-parse', 'main')}"
    assert git(root, "log", "-1", "--format=%s%n%(trailers:key=Loreline-Model)", "merges").splitlines() == [
        "Merge r by lore: PROMOTE",
        "Loreline-Model: models:/demo/1",
    ]


def test_the_same_identity_and_model_are_one_commit(root: Path, lock: dict[str, Path]) -> None:
    first = commit_files(root, "merges", lock, message())
    assert commit_files(root, "merges", {"dvc.lock": root / "mine.txt"}, message()) == first
    other_model = commit_files(root, "merges", lock, message(version=11))  # 1 is a prefix of 11
    other_identity = commit_files(root, "merges", lock, message("b" * 64))
    assert git(root, "rev-list", "main..merges").split() == [other_identity, other_model, first]
    tag(root, ["merge/r"], first)
    git(root, "branch", "-D", "merges")
    assert commit_files(root, "merges", lock, message()) == first  # the tag still has it


def test_what_was_committed_meanwhile_becomes_a_second_parent(root: Path, lock: dict[str, Path]) -> None:
    first = commit_files(root, "merges", lock, message())
    (root / "code.py").write_text("new code\n")
    git(root, "commit", "--quiet", "-am", "More")
    second = commit_files(root, "merges", lock, message("b" * 64))
    assert (
        git(root, "rev-parse", f"{second}^1", f"{second}^2") == f"{first}\n{git(root, 'rev-parse', 'main')}"
    )
    assert git(root, "show", "merges:code.py") == "new code"


def test_a_branch_in_use_is_refused(root: Path, lock: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(
        BadInput, match=r"version.branch: main is checked out in .*a project, .*check out another"
    ):
        commit_files(root, "main", lock, message())
    git(root, "worktree", "add", "--quiet", "-b", "merges", str(tmp_path / "other"))
    with pytest.raises(BadInput, match=r"version.branch: merges is checked out in .*other, .*name another"):
        commit_files(root, "merges", lock, message())
    with pytest.raises(BadInput, match=r"version.branch: a\.\.b is not a name that git accepts"):
        check_branch(root, "a..b")


def test_tags_never_move(root: Path, lock: dict[str, Path]) -> None:
    identities = ("a" * 64, "b" * 64)
    one, two = (commit_files(root, "merges", lock, message(identity)) for identity in identities)
    again = commit_files(root, "merges", lock, message("b" * 64, version=2))
    names = [
        tag(root, tag_names("r", version, revision, first=True), revision)
        for version, revision in ((1, one), (2, two), (2, again), (2, two))
    ]
    assert names == ["merge/r", "merge/r-v2", f"merge/r-v2-{again[:8]}", "merge/r-v2"]
    assert [git(root, "rev-parse", name) for name in names] == [one, two, again, two]
    assert tag(root, tag_names("s", 3, one, first=False), one) == "merge/s-v3"
    with pytest.raises(Unavailable, match=r"no name is left for the tag of .*; remove one of its tags"):
        tag(root, ["merge/r", "merge/r-v2"], again)


@pytest.mark.parametrize(
    ("name", "tagged"),
    [
        ("step 3: ü", "step-3-ü"),
        ("../a..b", "a-b"),
        ("x.lock", "x.lock-"),
        ("-~^:?*[", "run"),
        ("a@{0}", "a-0"),
        ("λ run: Ω", "λ-run-Ω"),
        ("..", "run"),
        ("@", "run"),
    ],
)
def test_any_name_of_a_run_makes_a_tag(root: Path, name: str, tagged: str) -> None:
    assert tag(root, [plain_tag(name)], git(root, "rev-parse", "main")) == f"merge/{tagged}"


def test_two_runs_whose_names_become_one_have_a_tag_each(root: Path, lock: dict[str, Path]) -> None:
    names = {"a b": "a" * 64, "a:b": "b" * 64, "a-b": "c" * 64}
    revisions = {name: commit_files(root, "merges", lock, message(own)) for name, own in names.items()}
    tags = {
        name: tag(root, tag_names(name, number, revisions[name], first=True), revisions[name])
        for number, name in enumerate(names, 1)
    }
    assert list(tags.values()) == ["merge/a-b", "merge/a-b-v2", "merge/a-b-v3"]
    assert {name: git(root, "rev-parse", own) for name, own in tags.items()} == revisions


def test_hooks_and_signing_do_not_get_in_the_way(root: Path, lock: dict[str, Path]) -> None:
    for hook in ("pre-commit", "commit-msg", "post-commit", "reference-transaction"):
        (root / ".git" / "hooks" / hook).write_text("#!/bin/sh\nexit 1\n")
        (root / ".git" / "hooks" / hook).chmod(0o755)
    with (root / ".git" / "config").open("a") as config:
        config.write("[commit]\n\tgpgsign = true\n[tag]\n\tgpgsign = true\n[gpg]\n\tprogram = false\n")
    assert tag(root, ["merge/r"], commit_files(root, "merges", lock, message())) == "merge/r"


def test_without_an_identity_loreline_commits(
    root: Path, lock: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for key in [*USER, "EMAIL"]:
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "none"))
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", str(tmp_path / "none"))
    config = (root / ".git" / "config").read_text()
    commit_files(root, "merges", lock, message())
    author = git(root, "log", "-1", "--format=%an <%ae> %cn", "merges")
    assert author == "Loreline <loreline@localhost> Loreline"
    assert (root / ".git" / "config").read_text() == config


def test_the_user_s_identity_is_used(
    root: Path, lock: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in USER:
        monkeypatch.delenv(key)
    git(root, "config", "user.name", "Ada")
    git(root, "config", "user.email", "ada@x")
    commit_files(root, "merges", lock, message())
    assert git(root, "log", "-1", "--format=%an %ce", "merges") == "Ada ada@x"


def test_a_detached_head_a_bare_repository_and_a_subdirectory_work(
    root: Path, lock: dict[str, Path], tmp_path: Path
) -> None:
    bare = tmp_path / "bare.git"
    git(tmp_path, "clone", "--quiet", "--bare", str(root), str(bare))
    linked = tmp_path / "linked"
    git(bare, "worktree", "add", "--quiet", "--detach", str(linked), "main")
    commit_files(linked / "package", "merges", lock, message())
    assert git(bare, "diff", "--name-status", "main", "merges") == "A\tpackage/dvc.lock"


def test_a_git_that_runs_loreline_does_not_misdirect_it(
    root: Path, lock: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "elsewhere" / "index"))
    revision = commit_files(root, "merges", lock, message())
    monkeypatch.undo()
    assert git(root, "rev-parse", "merges") == revision


def test_changed_files_are_those_that_are_not_as_committed(root: Path) -> None:
    names = ["dvc.yaml", "code.py", "package", "new.py", "gone.py"]
    assert changed_files(root, names) == []
    (root / "code.py").write_text("edited\n")
    (root / "new.py").write_text("new\n")
    (root / "package" / "part.py").unlink()
    (root / "package" / "other.py").touch()
    (root / "package" / "__pycache__").mkdir()
    (root / "package" / "__pycache__" / "part.pyc").touch()
    assert changed_files(root, names) == ["code.py", "new.py", "package/other.py", "package/part.py"]
    assert changed_files(root / "package", ["part.py"]) == ["part.py"]


def test_runs_that_end_together_all_land(root: Path, lock: dict[str, Path]) -> None:
    identities = [str(number) * 64 for number in range(6)]
    finish([spawn(_version, root, lock, f"run-{identity[0]}", identity) for identity in identities])
    assert len(git(root, "rev-list", "--first-parent", "main..merges").split()) == 6
    assert len(git(root, "tag").split()) == 6


def test_one_that_was_killed_anywhere_and_runs_again_is_one_commit_and_one_tag(
    root: Path, lock: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STALE_S", 0.2)  # a killed git leaves its lock
    started = time.monotonic()
    finish([spawn(_version, root, lock, "whole", "f" * 64)])
    takes, moment = time.monotonic() - started, random.Random(0)
    for number in range(12):
        child = spawn(_version, root, lock, f"run-{number}", f"{number:064d}")
        child.join(moment.uniform(0, takes))
        kill(child)
        _version(root, lock, f"run-{number}", f"{number:064d}")
    assert len(git(root, "rev-list", "main..merges").split()) == 13
    tags = git(
        root,
        "for-each-ref",
        "--format=%(refname:short) %(trailers:key=Loreline-Identity,valueonly,separator=)",
    )
    expected = [f"merge/run-{number} {number:064d}" for number in range(12)]
    assert sorted(line for line in tags.splitlines() if line.startswith("merge/run")) == sorted(expected)


def test_a_branch_that_cannot_be_moved_is_told(
    root: Path, lock: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TRIES", 2)
    git(root, "branch", "merges/other")
    with pytest.raises(
        Unavailable, match=r"version.branch: .*update-ref says: .*merges/other.*; mend that, or run"
    ):
        commit_files(root, "merges", lock, message())


@pytest.mark.parametrize(("age", "respected"), [(0, True), (100, False)])
def test_a_lock_is_respected_until_its_git_must_be_dead(
    root: Path, lock: dict[str, Path], monkeypatch: pytest.MonkeyPatch, age: float, respected: bool
) -> None:
    monkeypatch.setattr(module, "TRIES", 2)
    locked = root / ".git" / "refs" / "heads" / "merges.lock"
    locked.touch()
    os.utime(locked, (time.time() - age,) * 2)
    if respected:
        with pytest.raises(Unavailable, match=r"version.branch: .*merges.lock.*; mend that, or run"):
            commit_files(root, "merges", lock, message())
    else:
        commit_files(root, "merges", lock, message())
    assert locked.exists() == respected


def test_a_lock_on_a_tag_is_waited_for_and_no_other_name_is_taken(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    revision, locked = git(root, "rev-parse", "main"), root / ".git" / "refs" / "tags" / "merge" / "r.lock"
    locked.parent.mkdir(parents=True)
    locked.touch()
    with monkeypatch.context() as hasty:
        hasty.setattr(module, "TRIES", 2)
        with pytest.raises(Unavailable, match=r"merge/r.lock.*; run the same command again"):
            tag(root, ["merge/r"], revision)
    threading.Timer(0.5, locked.unlink).start()
    assert tag(root, ["merge/r"], revision) == "merge/r"


def _version(root: Path, lock: dict[str, Path], name: str, identity: str) -> None:
    tag(root, [plain_tag(name)], commit_files(root, "merges", lock, message(identity)))


def finish(children: list[Process]) -> None:
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0] * len(children)
