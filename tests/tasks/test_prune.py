"""`loreline prune` on real merges in git, DVC with a remote, and MLflow: what is let go goes, all else stays."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from flows import prune_command
from flows.prune_command import prune_old
from tasks.base.directories import state_dir
from tasks.base.records.training_run import TrainingRun
from tasks.parameters.params import Params, read_params
from tasks.parameters.registration import RegisterParams
from tasks.register_model import register_model
from tasks.registry.store import connect
from tasks.registry.versions import verify_files, version_of
from tasks.version_artifacts import version_artifacts
from tasks.versioning.worktree import close_workspace, open_workspace
from tests.support.dvc_project import OURS, USER, dvc, git, make_project
from tests.support.registered import Killed

KEEP_ONE = ["retention.newest=1", "version.push=true"]


pytestmark = pytest.mark.usefixtures("no_prefect_server")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for key, value in USER.items():
        monkeypatch.setenv(key, value)
    root = make_project(tmp_path / "project")
    dvc(root, "remote", "add", "--default", "there", str(tmp_path / "remote"))
    git(root, "commit", "--quiet", "-am", "A remote")
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def params(root: Path, store: RegisterParams, make_artifacts: Any) -> Params:
    """Merge three runs, each in a workspace of its own; only the newest one's version is kept."""
    for seed in range(3):
        params = read_params(root / "params.yaml", [f"fetch.source=runs/{seed}", "version.push=true"])
        place = root / ".loreline" / "runs" / f"{seed}"
        artifacts = make_artifacts(open_workspace(place, root, params) / "artifacts", seed=seed)
        run = artifacts / "run" / "run.json"
        TrainingRun.read(run).model_copy(update={"name": f"run-{seed}"}).write(run)
        register_model(store, artifacts)
        version_artifacts(params, artifacts, f"{seed}" * 64)
        close_workspace(place, root)
    return read_params(root / "params.yaml", KEEP_ONE)


def weights(directory: Path) -> int:
    """Count the files that are as big as a tiny model's weights."""
    return sum(
        path.stat().st_size > 2000 and b"model.norm" in path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    )


def places(root: Path) -> list[int]:
    return [weights(place) for place in (root / ".dvc" / "cache", root.parent / "remote")]


@pytest.mark.slow
def test_a_dry_run_changes_nothing_and_yes_removes_what_it_showed(
    root: Path, params: Params, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    git(tmp_path, "init", "--quiet", "--bare", origin := str(tmp_path / "origin.git"))
    git(root, "remote", "add", "origin", origin)
    git(root, "push", "--quiet", "--tags", "origin", "merges")
    params = read_params(root / "params.yaml", [*KEEP_ONE, "version.git_remote=origin"])
    git(root, "branch", "mine", "merge/run-1")  # a branch of the user's names that merge
    before = git(root, "for-each-ref")
    prune_old(params, root, do=False)
    shown = capsys.readouterr().out
    assert "demo keeps the weights of 3 (challenger)" in shown
    assert "would go: weights of version 1: " in shown
    assert (
        "in DVC's cache, 1 objects on the DVC remote, the tag merge/run-0 (0 days old, never promoted)"
        in shown
    )
    assert "Prefect's runs are not looked at: PREFECT_API_URL is not set" in shown
    assert git(root, "for-each-ref") == before
    assert places(root) == [3, 3]

    merges = git(root, "rev-parse", "merges")
    prune_old(params, root, do=True)
    assert "removed: weights of version 1: " in capsys.readouterr().out
    assert git(root, "tag").split() == git(Path(origin), "tag").split() == ["merge/run-2"]
    assert git(root, "rev-parse", "merges") == merges
    assert places(root) == [2, 2]  # the user's branch still gives its merge back
    prune_old(params, root, do=True)
    assert "nothing to remove" in capsys.readouterr().out

    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", str(root), str(clone))
    for revision in ("merge/run-2", "origin/mine"):
        git(clone, "checkout", "--quiet", revision)
        dvc(clone, "pull", *OURS)
        assert (clone / "artifacts" / "merged" / "model.safetensors").is_file()
    verify_files(connect(params.register_), version_of(connect(params.register_), "demo", 3))
    # evidence and history are whole
    git(clone, "checkout", "--quiet", "origin/merges~2")
    dvc(clone, "pull", "evaluate")
    assert json.loads((clone / "artifacts" / "evaluation" / "evaluation.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("step", ["remove_tag", "remove_objects"])
def test_killed_between_two_steps_the_next_call_completes_it(
    root: Path, params: Params, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def die(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as killing:
        killing.setattr(prune_command, step, die)
        with pytest.raises(Killed):
            prune_old(params, root, do=True)
    prune_old(params, root, do=True)
    assert git(root, "tag").split() == ["merge/run-2"]
    assert places(root) == [1, 1]


def test_old_workspaces_and_results_go_and_new_ones_stay(
    store: RegisterParams, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    params = Params.model_validate(
        {
            "fetch": {"source": "runs/x"},
            "evaluate": {"tasks": ["t"], "primary": "t/nll"},
            "register": {"name": "demo"},
        }
    )
    home = state_dir()
    assert Path(connect(store).tracking_uri.removeprefix("sqlite:///")).parent == home
    old = time.time() - 31 * 86400
    for name in ("old", "new"):
        for path in (
            home / "runs" / name,
            home / "evaluations" / f"{name}.json",
            home / "evaluations" / "partial" / f"{name}.jsonl",
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir() if path.parent.name == "runs" else path.write_text("{}")
            if name == "old":
                os.utime(path, (old, old))
    prune_old(params, tmp_path, do=False)
    shown = capsys.readouterr().out
    assert "demo keeps the weights of no version: there is none" in shown
    assert "would go: workspace old (older than 30 days, nobody works in it)" in shown
    assert "would go: 2 results of evaluations" in shown
    prune_old(params, tmp_path, do=True)
    left = sorted(
        path.stem for path in [*home.glob("runs/*"), *home.glob("evaluations/*.json"), *home.rglob("*.jsonl")]
    )
    assert left == ["new", "new", "new"]
