"""A workspace holds what runs, shares the DVC cache, and comes and goes without a trace in the user's checkout."""

import os
import random
import shutil
import time
from pathlib import Path

import pytest
import yaml

from tasks.parameters.params import Params, read_params
from tasks.versioning import worktree
from tasks.versioning.git import GitRefused
from tasks.versioning.shared_cache import default_remote, settings
from tasks.versioning.worktree import close_workspace, open_workspace
from tests.support.dvc_project import (
    commit_all,
    git,
    init_git,
    make_dirty,
    make_project,
    state,
    write_project,
)
from tests.support.killing import kill, spawn

VALUES = [
    {"merge": {"method": "lore", "lore": {"mu": 1e-07}}, "fetch": {"source": "runs/a: b # 'c' \"d\" ü"}},
    {
        "merge": {"method": "ties", "weights": [0.1, 0.9]},
        "evaluate": {"tasks": ["on", "1e3"], "primary": "on/nll"},
    },
    {"register": {"name": "null", "promote": "auto"}, "version": {"branch": "0", "push": True}},
    {"watch": {"roots": ["*", "&a"]}, "select": {"rule": "steps", "steps": [1, 2]}},
]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("template") / "a project")


@pytest.fixture
def root(tmp_path: Path, template: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "a project", symlinks=True))


@pytest.fixture
def params(root: Path) -> Params:
    return read_params(root / "params.yaml", ["merge.method=lore"])


def test_closing_a_workspace_that_another_process_closes_is_no_error(
    root: Path, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The flow and the watch's cleaning up both do, when a merge has just been recorded."""
    place = root / ".loreline" / "runs" / "a b"
    open_workspace(place, root, params)
    known, closed = worktree._registered, []

    def registered(place: Path, root: Path) -> bool:
        found = known(place, root)
        if found and not closed:
            closed.append(git(root, "worktree", "prune"))
        return found

    monkeypatch.setattr(worktree, "_registered", registered)
    close_workspace(place, root)
    assert closed
    assert not place.exists()
    assert not (root / ".git" / "worktrees").exists()


def test_a_workspace_that_git_will_not_let_go_is_an_error(
    root: Path, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = root / ".loreline" / "runs" / "a b"
    open_workspace(place, root, params)
    run = worktree.git

    def refusing(directory: Path, *arguments: str) -> str:
        return run(directory, *arguments, *(["--no-such-option"] if "remove" in arguments else []))

    monkeypatch.setattr(worktree, "git", refusing)
    with pytest.raises(GitRefused, match="no-such-option"):
        close_workspace(place, root)


def test_the_user_s_checkout_is_as_before(root: Path, params: Params) -> None:
    make_dirty(root)
    before = state(root)
    place = root / ".loreline" / "runs" / "a b"
    workspace = open_workspace(place, root, params)
    assert read_params(workspace / "params.yaml") == params
    close_workspace(place, root)
    assert state(root) == before
    assert not (root / ".git" / "worktrees").exists()


def test_it_holds_what_runs_and_nothing_else(root: Path, params: Params, tmp_path: Path) -> None:
    (root / "code.py").write_text("edited\n")
    (root / "package" / "new.py").write_text("new\n")
    workspace = open_workspace(tmp_path / "place", root, params)
    held = {str(path.relative_to(workspace)) for path in workspace.rglob("*") if path.is_file()}
    code = {"code.py", "package/new.py", "package/part.py"}
    own = {".git", ".dvc/config", ".dvc/config.local"}
    assert held == {"dvc.yaml", "params.yaml", ".dvcignore", ".gitignore", *code, *own}
    assert (workspace / "code.py").read_text() == "edited\n"
    assert git(workspace, "rev-parse", "HEAD") == git(root, "rev-parse", "HEAD")


@pytest.mark.parametrize("values", VALUES)
def test_parameters_read_back_as_they_were(tmp_path: Path, values: dict[str, object]) -> None:
    evaluate = {"tasks": ["t"], "primary": "t/nll"}
    params = Params.model_validate({"fetch": {"source": "runs/a"}, "evaluate": evaluate, **values})
    workspace = open_workspace(tmp_path / "place", tmp_path, params)
    assert read_params(workspace / "params.yaml") == params


def test_a_workspace_is_reopened_with_the_finished_work_and_the_code_of_now(
    root: Path, params: Params, tmp_path: Path
) -> None:
    place = tmp_path / "place"
    finished = open_workspace(place, root, params) / "artifacts" / "run.json"
    finished.parent.mkdir()
    finished.write_text("finished")
    (root / "code.py").write_text("mended\n")
    (root / "package" / "part.py").unlink()
    (root / "package" / "other.py").touch()
    (root / ".gitignore").unlink()
    commit_all(root)
    workspace = open_workspace(place, root, params)
    assert finished.read_text() == "finished"
    assert (workspace / "code.py").read_text() == "mended\n"
    assert os.listdir(workspace / "package") == ["other.py"]  # noqa: PTH208
    assert not (workspace / ".gitignore").exists()
    assert git(workspace, "rev-parse", "HEAD") == git(root, "rev-parse", "HEAD")


def test_one_that_was_killed_anywhere_opens_and_closes_again(
    root: Path, params: Params, tmp_path: Path
) -> None:
    place, before = tmp_path / "place", state(root)
    started = time.monotonic()
    open_workspace(place, root, params)
    takes, moment = time.monotonic() - started, random.Random(0)
    close_workspace(place, root)
    for _ in range(6):
        child = spawn(open_workspace, place, root, params)
        child.join(moment.uniform(0, takes))
        kill(child)
        workspace = open_workspace(place, root, params)
        assert read_params(workspace / "params.yaml") == params
        assert git(workspace, "rev-parse", "HEAD") == git(root, "rev-parse", "HEAD")
        child = spawn(close_workspace, place, root)
        child.join(moment.uniform(0, takes / 4))
        kill(child)
        close_workspace(place, root)
        assert not place.exists()
    assert state(root) == before


def test_what_is_not_a_whole_worktree_is_made_again(root: Path, params: Params, tmp_path: Path) -> None:
    place = tmp_path / "place"
    open_workspace(place, root, params)
    shutil.rmtree(root / ".git" / "worktrees")
    assert git(open_workspace(place, root, params), "status", "--porcelain", "code.py").endswith("code.py")
    shutil.rmtree(place)  # and what is registered without a directory
    assert open_workspace(place, root, params).is_dir()


def test_other_worktrees_stay_even_missing_ones(root: Path, params: Params, tmp_path: Path) -> None:
    git(root, "worktree", "add", "--quiet", "-b", "theirs", str(tmp_path / "on a stick"))
    (tmp_path / "on a stick").rename(tmp_path / "unplugged")
    close_workspace(tmp_path / "place", root)
    open_workspace(tmp_path / "place", root, params)
    close_workspace(tmp_path / "place", root)
    assert "on a stick" in git(root, "worktree", "list")


def test_hooks_do_not_run(root: Path, params: Params, tmp_path: Path) -> None:
    hook = root / ".git" / "hooks" / "post-checkout"
    hook.write_text(f"#!/bin/sh\ntouch '{tmp_path}/ran'\nexit 1\n")
    hook.chmod(0o755)
    open_workspace(tmp_path / "place", root, params)
    assert not (tmp_path / "ran").exists()


def test_without_git_or_a_commit_it_is_a_plain_directory(params: Params, tmp_path: Path) -> None:
    root = write_project(tmp_path / "project")
    for place in (tmp_path / "without git", tmp_path / "without commit"):
        workspace = open_workspace(place, root, params)
        assert [path.name for path in workspace.iterdir()] == ["params.yaml"]
        close_workspace(place, root)
        assert not place.exists()
        init_git(root)


def test_a_project_below_the_top_of_its_repository_has_its_place_there(
    params: Params, tmp_path: Path
) -> None:
    top = commit_all(init_git(write_project(tmp_path / "mono" / "sub").parent))
    workspace = open_workspace(tmp_path / "place", top / "sub", params)
    assert workspace == tmp_path / "place" / "sub"
    assert git(workspace, "rev-parse", "--show-prefix") == "sub/"


def test_a_linked_worktree_of_a_bare_repository_is_a_project(
    root: Path, params: Params, tmp_path: Path
) -> None:
    git(tmp_path, "clone", "--quiet", "--bare", str(root), "bare.git")
    git(tmp_path / "bare.git", "worktree", "add", "--quiet", str(tmp_path / "linked"), "main")
    place = tmp_path / "linked" / ".loreline" / "place"
    assert (open_workspace(place, tmp_path / "linked", params) / "code.py").is_file()
    assert git(tmp_path / "linked", "status", "--porcelain") == ""
    close_workspace(place, tmp_path / "linked")
    assert len(git(tmp_path / "bare.git", "worktree", "list").splitlines()) == 2


def test_what_the_user_s_pipeline_links_to_is_never_written(
    root: Path, params: Params, tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "data.txt").write_text("precious")
    (root / "linked").symlink_to(precious)
    pipeline = yaml.safe_load((root / "dvc.yaml").read_text())
    pipeline["stages"]["merge"]["deps"] += [
        "linked",
        "linked/data.txt",
        "../precious/data.txt",
        "s3://a/b",
        ".",
        str(precious / "data.txt"),
    ]
    (root / "dvc.yaml").write_text(yaml.safe_dump(pipeline))
    for _ in range(2):
        workspace = open_workspace(tmp_path / "place", root, params)
    assert (workspace / "linked" / "data.txt").read_text() == "precious"
    close_workspace(tmp_path / "place", root)
    assert (precious / "data.txt").read_text() == "precious"


def test_cache_remotes_and_credentials_are_the_user_s_and_private(
    root: Path, params: Params, tmp_path: Path
) -> None:
    near, far = "['remote \"near\"']\nurl = ../../a store\n", "['remote \"far\"']\n"
    (root / ".dvc" / "config").write_text(f"[core]\nremote = near\n{near}{far}url = s3://bucket/path\n")
    secret = "secret_access_key = hidden % value\ncredentialpath = ../keys\n"
    (root / ".dvc" / "config.local").write_text(far + secret)
    workspace = open_workspace(tmp_path / "deep" / "place", root, params)
    mine, theirs = settings(workspace), settings(root)
    assert mine["remote"] == theirs["remote"]
    assert mine["remote"]["near"]["url"] == str(tmp_path / "a store")
    assert mine["remote"]["far"]["credentialpath"] == str(root / "keys")
    assert default_remote(workspace) == "near"
    assert mine["cache"]["dir"] == str(root / ".dvc" / "cache")
    private = workspace / ".dvc" / "config.local"
    assert private.stat().st_mode & 0o077 == 0
    assert "hidden" in private.read_text()
    assert "hidden" not in (workspace / ".dvc" / "config").read_text()
    with (root / ".dvc" / "config").open("a") as config:
        config.write("[cache]\ndir = ../../other cache\n")
    open_workspace(tmp_path / "deep" / "place", root, params)
    assert settings(workspace)["cache"]["dir"] == str(tmp_path / "other cache")
