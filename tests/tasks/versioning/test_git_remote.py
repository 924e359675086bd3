"""Two clones and their remote: all commits arrive, none changes, and a tag names one commit everywhere."""

import random
import shutil
import time
from pathlib import Path

import pytest

from tasks.base.errors import BadInput, Unavailable
from tasks.versioning import commit, git_remote
from tasks.versioning.commit import Message, commit_files, tag_names
from tasks.versioning.git_remote import catch_up, check_git_remote, remove_remote_tag, share
from tests.support.dvc_project import USER, commit_all, git, init_git, write_project
from tests.support.killing import kill, spawn

Clones = tuple[Path, Path, Path]


@pytest.fixture
def clones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clones:
    """Make a bare remote and two clones of it."""
    for key, value in USER.items():
        monkeypatch.setenv(key, value)
    start = commit_all(init_git(write_project(tmp_path / "start")))
    remote, one, two = (tmp_path / name for name in ("remote.git", "a clone", "another"))
    git(tmp_path, "clone", "--quiet", "--bare", str(start), str(remote))
    for clone in (one, two):
        git(tmp_path, "clone", "--quiet", str(remote), str(clone))
    return remote, one, two


def committed(root: Path, version: int, text: str = "") -> str:
    """Commit a version to the branch, as stage version does after it has caught up."""
    lock = root / ".git" / "lock"
    lock.write_text(f"{text or version}\n")
    trailers = {"Loreline-Identity": f"{version:064d}", "Loreline-Model": f"models:/demo/{version}"}
    return commit_files(
        root, "merges", {"dvc.lock": lock}, Message(f"Merge {version}", "It gains.", trailers)
    )


def shared(root: Path, run: str, version: int, first: bool = True) -> tuple[str, str]:
    catch_up(root, "merges", "origin")
    revision = committed(root, version)
    names = tag_names(run, version, revision, first)
    return revision, share(root, "merges", "origin", revision, names)


def merges(root: Path) -> list[str]:
    """Return the merges on a branch, the newest first."""
    return git(root, "log", "--format=%s", "main..merges").splitlines()


def tags(root: Path) -> dict[str, str]:
    lines = git(root, "for-each-ref", "--format=%(refname:short) %(objectname)", "refs/tags").splitlines()
    return dict(line.split() for line in lines)


def test_what_one_clone_pushed_the_other_goes_on_from(clones: Clones) -> None:
    remote, one, two = clones
    first, name = shared(one, "r", 1)
    second, other = shared(two, "s", 2)
    assert (name, other) == ("merge/r", "merge/s")
    assert merges(remote) == merges(two) == ["Merge 2", "Merge 1"]  # and no join
    assert tags(remote) == {"merge/r": first, "merge/s": second}
    assert shared(one, "r", 1) == (first, "merge/r")  # again: nothing is added
    assert merges(remote) == merges(one) == ["Merge 2", "Merge 1"]
    assert (git(one, "status", "--porcelain"), git(one, "branch", "--show-current")) == ("", "main")


def test_the_same_merge_is_fetched_rather_than_made_anew(clones: Clones) -> None:
    _, one, two = clones
    first = shared(one, "r", 1)
    catch_up(two, "merges", "origin")
    assert committed(two, 1, "other bytes") == first[0]


def test_clones_that_both_went_on_are_joined_and_no_commit_changes(clones: Clones) -> None:
    remote, one, two = clones
    mine = committed(two, 2)  # while version.push was off
    shared(one, "r", 1)
    assert shared(two, "s", 2) == (mine, "merge/s")
    assert sorted(merges(remote)) == ["Join the merges of origin", "Merge 1", "Merge 2"]
    assert shared(one, "t", 3)[1] == "merge/t"
    assert merges(remote) == merges(one)
    assert len(merges(one)) == 4


def test_a_tag_that_another_clone_pushed_is_theirs(clones: Clones) -> None:
    """A longer name is taken, and the short one names nothing here, even where it was made before."""
    remote, one, two = clones
    mine = committed(two, 2)
    assert commit.tag(two, ["merge/r"], mine) == "merge/r"
    first, _ = shared(one, "r", 1)
    assert shared(two, "r", 2) == (mine, "merge/r-v2")
    assert tags(two) == {"merge/r-v2": mine}
    assert tags(remote) == {"merge/r": first, "merge/r-v2": mine}


def test_who_is_overtaken_between_fetching_and_pushing_tries_again(
    clones: Clones, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote, one, two = clones
    real, faster = git_remote.tag, iter([1])

    def late(*given: object) -> str:
        name = real(*given)  # type: ignore[arg-type]
        for version in faster:
            shared(one, "r", version)
        return name

    monkeypatch.setattr(git_remote, "tag", late)
    revision, name = shared(two, "r", 2)
    assert name == "merge/r-v2"
    assert tags(two) == {"merge/r-v2": revision}
    assert sorted(tags(remote)) == ["merge/r", "merge/r-v2"]
    assert sorted(merges(remote)) == ["Join the merges of origin", "Merge 1", "Merge 2"]


def test_a_remote_that_is_away_or_refuses_is_told_and_nothing_is_lost(clones: Clones) -> None:
    remote, one, _ = clones
    check_git_remote(one, "origin")
    with pytest.raises(
        BadInput, match=r"version.git_remote: there is no git remote up; run git remote add up"
    ):
        check_git_remote(one, "up")
    (remote / "hooks" / "pre-receive").write_text("#!/bin/sh\necho no merges here >&2\nexit 1\n")
    (remote / "hooks" / "pre-receive").chmod(0o755)
    with pytest.raises(Unavailable, match=r"no merges here.*; the push is pending; run the same command"):
        shared(one, "r", 1)
    shutil.move(remote, remote.with_name("away"))
    with pytest.raises(Unavailable, match=r"git ls-remote says: .*; the push is pending; run the same"):
        shared(one, "r", 1)
    shutil.move(remote.with_name("away"), remote)
    (remote / "hooks" / "pre-receive").unlink()
    assert shared(one, "r", 1)[1] == "merge/r"
    assert merges(remote) == ["Merge 1"]


def test_a_tag_is_removed_from_the_remote_unless_it_is_another_s(clones: Clones) -> None:
    remote, one, two = clones
    first, name = shared(one, "r", 1)
    remove_remote_tag(two, "origin", name, git(two, "rev-parse", "main"))
    assert tags(remote) == {"merge/r": first}
    for _ in range(2):
        remove_remote_tag(two, "origin", name, first)
        assert tags(remote) == {}
    assert tags(one) == {"merge/r": first}


def test_killed_anywhere_and_run_again_in_two_clones_it_is_one_commit_and_one_tag(
    clones: Clones, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote, one, two = clones
    monkeypatch.setattr(commit, "STALE_S", 0.2)  # a killed git leaves its lock
    began = time.monotonic()
    spawn(shared, one, "whole", 99).join()
    takes, moment = time.monotonic() - began, random.Random(0)
    for number in range(1, 7):
        root = (one, two)[number % 2]
        child = spawn(shared, root, "r", number)
        child.join(moment.uniform(0, takes))
        kill(child)
        for lock in remote.rglob(
            "*.lock"
        ):  # git's other end died with it here; on a server it lives and ends
            lock.unlink()
        shared(root, "r", number)
    made = [line for line in merges(remote) if line.startswith("Merge ")]
    assert sorted(made) == sorted(["Merge 99", *(f"Merge {number}" for number in range(1, 7))])
    everywhere = tags(remote)
    assert len(everywhere) == 7
    for root in (one, two):
        assert tags(root).items() <= everywhere.items()
