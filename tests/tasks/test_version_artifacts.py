"""Stage version: every merged run is a commit and a tag that give its model back, and nothing of the user's moves."""

import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.base.errors import BadInput, LorelineError, Unavailable
from tasks.base.records.registration import Registration
from tasks.base.records.training_run import TrainingRun
from tasks.parameters.params import read_params
from tasks.parameters.registration import RegisterParams
from tasks.register_model import register_model
from tasks.registry.store import connect
from tasks.version_artifacts import Versioned, check_version, version_artifacts
from tasks.versioning import dvc as running
from tasks.versioning.worktree import close_workspace, open_workspace
from tests.support.dvc_project import (
    OURS,
    USER,
    dvc,
    git,
    init_git,
    make_dirty,
    make_project,
    run,
    state,
    write_project,
)

Merge = Callable[..., Path]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("template") / "project")


@pytest.fixture
def root(tmp_path: Path, template: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for key, value in USER.items():
        monkeypatch.setenv(key, value)
    return Path(shutil.copytree(template, tmp_path / "project", symlinks=True))


@pytest.fixture
def merge(store: RegisterParams, make_artifacts: Any) -> Merge:
    """Do what the stages before do: a run that is merged, judged and registered."""

    def make(artifacts: Path, name: str = "tiny", seed: int = 0) -> Path:
        make_artifacts(artifacts, seed=seed)
        path = artifacts / "run" / "run.json"
        TrainingRun.read(path).model_copy(update={"name": name}).write(path)
        register_model(store, artifacts)
        return artifacts

    return make


@pytest.fixture
def lone(store: RegisterParams, make_artifacts: Any) -> Merge:
    """Do what the stages before do, without the seconds that MLflow takes."""

    def make(artifacts: Path) -> Path:
        make_artifacts(artifacts)
        (artifacts / "registration").mkdir()
        Registration(name="demo", version=1, model_id="m", run_id="r", digest="d", aliases=()).write(
            artifacts / "registration" / "registration.json"
        )
        return artifacts

    return make


def tags(artifacts: Path) -> dict[str, str]:
    made = Registration.read(artifacts / "registration" / "registration.json")
    client = connect(RegisterParams(name="demo"))
    found: dict[str, str] = client.get_model_version(made.name, str(made.version)).tags
    return {
        key: found[key]
        for key in ("loreline.git_tag", "loreline.git_revision", "loreline.push")
        if key in found
    }


def contents(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


@pytest.mark.slow
def test_a_version_keeps_the_first_commit_and_the_push_that_it_was_told(root: Path, merge: Merge) -> None:
    """Another identity, as of other parameters that give the same merge and judgement, is another commit."""
    settings, place = ["merge.method=lore"], root / ".loreline" / "x"
    params = read_params(root / "params.yaml", settings)
    artifacts = merge(open_workspace(place, root, params) / "artifacts")
    first = version_artifacts(params, artifacts, "a" * 64)
    before, weights = tags(artifacts), (artifacts / "merged" / "model.safetensors").stat()
    assert (weights.st_nlink, weights.st_mode & 0o222) == (3, 0), "here, in DVC's cache and in MLflow's store"
    assert before["loreline.git_tag"] == first.tag == "merge/tiny"
    assert version_artifacts(params, artifacts, "b" * 64).tag == "merge/tiny-v1"
    assert tags(artifacts) == before
    default_remote(root)
    pushing = read_params(root / "params.yaml", [*settings, "version.push=true"])
    open_workspace(place, root, pushing)
    assert version_artifacts(pushing, artifacts, "b" * 64).pushed == "done"
    assert tags(artifacts) == before
    assert version_artifacts(pushing, artifacts, "a" * 64).pushed == "done"
    assert tags(artifacts) == before | {"loreline.push": "done"}
    open_workspace(place, root, params)
    assert version_artifacts(params, artifacts, "a" * 64).pushed == "off"
    assert tags(artifacts) == before | {"loreline.push": "done"}


@pytest.mark.slow
@pytest.mark.parametrize("git_remote", [None, "origin"])
def test_a_tag_names_one_commit_in_two_clones(
    root: Path, merge: Merge, tmp_path: Path, git_remote: str | None
) -> None:
    """They share the registry, and a remote if any: without one, neither knows what the other committed."""
    settings = [
        "merge.method=lore",
        *(["version.push=true", f"version.git_remote={git_remote}"] if git_remote else []),
    ]
    (origin := tmp_path / "origin.git").mkdir()
    git(origin, "init", "--quiet", "--bare", "--initial-branch", "main")
    git(root, "remote", "add", "origin", str(origin))
    git(root, "push", "--quiet", "origin", "main")
    other = tmp_path / "other"
    git(tmp_path, "clone", "--quiet", str(origin), str(other))
    for clone in (root, other):
        default_remote(clone, str(tmp_path / "a store"))
    params = read_params(root / "params.yaml", settings)

    def versioned(clone: Path, seed: int) -> Versioned:
        artifacts = merge(
            open_workspace(clone / ".loreline" / str(seed), clone, params) / "artifacts", seed=seed
        )
        return version_artifacts(params, artifacts, f"{seed}" * 64)

    first = versioned(root, 0)
    assert versioned(root, 0) == first
    again, second = versioned(other, 0), versioned(other, 1)
    assert (first.tag, again.tag, second.tag) == ("merge/tiny", "merge/tiny", "merge/tiny-v2")
    assert again.revision == first.revision
    if git_remote:
        assert second.sentence.endswith(", pushed to origin and the DVC remote")
        assert git(other, "rev-parse", f"{second.tag}^") == first.revision
        assert git(origin, "rev-parse", "merge/tiny", "merge/tiny-v2", "merges").split() == [
            first.revision, second.revision, second.revision,
        ]  # fmt: skip
    else:
        assert (
            again.sentence == f"committed in another clone as {str(first.revision)[:10]}, tagged merge/tiny"
        )
        assert git(other, "tag").split() == ["merge/tiny-v2"]
        assert git(origin, "for-each-ref", "--format=%(refname:short)") == "main"


@pytest.mark.slow
def test_three_runs_are_three_tags_that_give_three_models_back(
    root: Path, merge: Merge, tmp_path: Path
) -> None:
    """From workspaces of their own, beside a checkout full of unfinished work, which stays as it is."""
    settings = [f"fetch.source=runs/{name}" for name in "abc"]
    asked = [read_params(root / "params.yaml", [setting]) for setting in settings]
    make_dirty(root)
    before, status = state(root), dvc(root, "status", "--json")
    models: dict[str, dict[str, bytes]] = {}
    for seed, params in enumerate(asked):
        if seed == 2:
            (root / "code.py").write_text("not committed\n")
        place = root / ".loreline" / "runs" / f"a place {seed}"
        artifacts = merge(open_workspace(place, root, params) / "artifacts", f"run {seed}", seed)
        done = version_artifacts(params, artifacts, f"{seed}" * 64)
        assert done.tag == f"merge/run-{seed}"
        assert tags(artifacts) == {
            "loreline.git_tag": done.tag,
            "loreline.git_revision": done.revision,
            "loreline.push": "off",
        }
        assert done.sentence == (
            f"committed to merges as {str(done.revision)[:10]}, tagged merge/run-{seed} "
            f"(merge/run {seed} is another merge's tag, or no name that git accepts)"
        )
        models[done.tag] = contents(artifacts / "merged")
        assert seed or dvc(root, "status", "--json") == status
        close_workspace(place, root)
    (root / "code.py").write_text("code\n")
    assert {**state(root), "files": 0} == {**before, "files": 0}

    assert len(git(root, "rev-list", "--first-parent", "main..merges").split()) == 3
    told = git(root, "log", "-1", "--format=%B", "merge/run-2")
    assert told.startswith("Merge run 2 by lore: PROMOTE\n\nPROMOTE: the merge gains 0.5.\n")
    assert "Ran with changes that are not committed: code.py\n" in told
    assert told.rstrip().endswith(
        f"Loreline-Run: run 2\nLoreline-Identity: {'2' * 64}\nLoreline-Model: models:/demo/3"
    )
    assert "not committed:" not in git(root, "log", "-1", "--format=%B", "merge/run-1")

    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", str(root), str(clone))
    (clone / ".dvc" / "config.local").write_text(f"[cache]\ndir = {root / '.dvc' / 'cache'}\n")
    for seed, (tag, model) in enumerate(models.items()):
        git(clone, "checkout", "--quiet", tag)
        dvc(clone, "checkout", *OURS)
        assert contents(clone / "artifacts" / "merged") == model
        assert read_params(clone / "params.yaml") == asked[seed]
        clean = "up to date" in dvc(clone, "status", *OURS)
        assert clean == (seed < 2)  # the third ran with code that nobody committed
    assert git(clone, "status", "--porcelain") == ""


def test_in_place_the_user_s_dvc_lock_is_updated_as_dvc_repro_would(root: Path, merge: Merge) -> None:
    (root / "params.yaml").write_text((root / "params.yaml").read_text() + "# edited, not committed\n")
    (root / "staged.txt").write_text("staged\n")
    git(root, "add", "staged.txt")
    index = (root / ".git" / "index").read_bytes()
    params, artifacts = read_params(root / "params.yaml"), merge(root / "artifacts")
    done = version_artifacts(params, artifacts, "a" * 64)
    assert dvc(root, "repro", "--single-item", *OURS).count("didn't change") == len(OURS)
    assert git(root, "diff", "--name-only", "main", "merge/tiny").split() == ["dvc.lock", "params.yaml"]
    assert git(root, "show", "merge/tiny:params.yaml").endswith("# edited, not committed")
    assert (root / ".git" / "index").read_bytes() == index
    assert git(root, "symbolic-ref", "HEAD") == "refs/heads/main"
    assert version_artifacts(params, artifacts, "a" * 64) == done


def test_parameters_edited_during_a_run_in_place_are_not_said_to_have_run(root: Path, lone: Merge) -> None:
    params = read_params(root / "params.yaml")
    (root / "params.yaml").write_text((root / "params.yaml").read_text().replace("average", "lore"))
    done = version_artifacts(params, lone(root / "artifacts"), "a" * 64)
    assert done.sentence.startswith("not versioned: params.yaml was changed during the run")
    assert not (root / "dvc.lock").exists()
    assert not git(root, "branch", "--list", "merges")


def test_one_that_was_cut_short_before_each_publication_converges(root: Path, merge: Merge) -> None:
    """A superseded run is told so before its commit, and before the registry's tags."""
    remote = default_remote(root)
    params = read_params(root / "params.yaml", ["version.push=true", "merge.method=lore"])
    artifacts = merge(open_workspace(root / ".loreline" / "runs" / "x", root, params) / "artifacts")
    seen: list[tuple[bool, bool, str | None]] = []

    def confirm_until(number: int) -> Callable[[], None]:
        calls = iter(range(100))

        def confirm() -> None:
            if next(calls) == number:
                committed, tagged = git(root, "branch", "--list", "merges"), git(root, "tag")
                seen.append((bool(committed), bool(tagged), tags(artifacts).get("loreline.push")))
                raise LorelineError("job", "another took over", "go on")

        return confirm

    for number in range(3):
        with pytest.raises(LorelineError, match="another took over"):
            version_artifacts(params, artifacts, "a" * 64, confirm_until(number))
    assert seen == [(False, False, None), (True, True, None), (True, True, "pending")]
    done = version_artifacts(params, artifacts, "a" * 64)
    assert done.pushed == tags(artifacts)["loreline.push"] == "done"
    assert git(root, "rev-list", "main..merges").split() == [done.revision]
    assert git(root, "tag").split() == ["merge/tiny"]
    shutil.rmtree(remote)
    assert version_artifacts(params, artifacts, "a" * 64) == done  # it is not pushed twice


def test_a_push_that_fails_is_pending_until_the_flow_runs_again(
    root: Path, merge: Merge, tmp_path: Path
) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # nobody listens
        default_remote(root, f"http://me:secret@127.0.0.1:{silent.getsockname()[1]}")
        params = read_params(root / "params.yaml", ["version.push=true", "merge.method=lore"])
        place = tmp_path / "place"
        artifacts = merge(open_workspace(place, root, params) / "artifacts")
        with pytest.raises(
            Unavailable, match="dvc push failed: .*Cannot connect.*; everything is kept, "
        ) as told:
            version_artifacts(params, artifacts, "a" * 64)
    assert str(told.value).endswith(
        "as merge/tiny, and the push is pending; run the same command again when the remote answers"
    )
    assert "secret" not in str(told.value)
    assert tags(artifacts)["loreline.push"] == "pending"
    assert tags(artifacts)["loreline.git_revision"] == git(root, "rev-parse", "merges")
    default_remote(root)
    assert open_workspace(place, root, params) / "artifacts" == artifacts  # the flow runs again
    done = version_artifacts(params, artifacts, "a" * 64)
    assert done.sentence.endswith("tagged merge/tiny, pushed to the DVC remote")
    assert done.revision == tags(artifacts)["loreline.git_revision"] == git(root, "rev-parse", "merges")
    assert tags(artifacts)["loreline.push"] == "done"

    model = contents(artifacts / "merged")
    close_workspace(place, root)
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", "--branch", "merge/tiny", str(root), str(clone))
    shutil.copyfile(root / ".dvc" / "config", clone / ".dvc" / "config")
    dvc(clone, "pull", *OURS)
    assert contents(clone / "artifacts" / "merged") == model


def default_remote(root: Path, url: str = "../../a store") -> Path:
    """Set a default remote, relative to the user's .dvc/config, in what is not committed of it."""
    (root / ".dvc" / "config").write_text(f"[core]\nremote = near\n['remote \"near\"']\nurl = {url}\n")
    return root.parent / "a store"


def test_a_model_lies_on_the_disk_once_and_cannot_be_changed_by_accident(root: Path, merge: Merge) -> None:
    """The registry's file, the workspace's and DVC's are one, read-only; it stays when the workspace goes."""
    params = read_params(root / "params.yaml", ["merge.method=lore"])
    place = root / ".loreline" / "runs" / "x"
    artifacts = merge(open_workspace(place, root, params) / "artifacts")
    version_artifacts(params, artifacts, "a" * 64)
    weights = (artifacts / "merged" / "model.safetensors").stat()
    assert weights.st_mode & 0o222 == 0
    model = connect(RegisterParams(name="demo")).get_model_version_download_uri("demo", "1")
    registered = Path(model.removeprefix("file://")) / "model.safetensors"
    close_workspace(place, root)
    cached = [path for path in (root / ".dvc" / "cache").rglob("*") if path.is_file()]
    assert weights.st_ino == registered.stat().st_ino
    assert weights.st_ino in [path.stat().st_ino for path in cached]


def test_sections_that_are_left_at_their_defaults_are_named_before_dvc_refuses_them(
    root: Path, lone: Merge
) -> None:
    (root / "params.yaml").write_text("fetch: {source: runs/a}\nevaluate: {tasks: [t], primary: t/nll}\n")
    params = read_params(root / "params.yaml")
    artifacts = lone(root / "artifacts")
    said = version_artifacts(params, artifacts, "a" * 64).sentence
    assert said.startswith("not versioned: params.yaml lacks merge, register.name, which dvc.yaml names")
    with pytest.raises(LorelineError, match="Parameters 'merge' are missing"):
        running.dvc(root, "commit", "--force", *OURS)


def test_what_cannot_be_versioned_is_said_not_raised(lone: Merge, tmp_path: Path) -> None:
    root = write_project(tmp_path / "project")
    artifacts, params = lone(root / "artifacts"), read_params(root / "params.yaml")

    def said() -> str:
        done = version_artifacts(params, artifacts, "a" * 64)
        assert done == Versioned(sentence=done.sentence)
        return done.sentence

    assert said() == "not versioned: not a DVC repository; run dvc init"
    dvc(root, "init", "--quiet", "--no-scm")
    assert said() == "recorded in dvc.lock, not versioned: not a git repository; run git init and commit"
    assert "up to date" in dvc(root, "status", *OURS)
    init_git(root)
    git(root, "add", "code.py")
    run(root, "git", "commit", "--quiet", "-m", "Code")
    assert said().endswith("not versioned: dvc.yaml is not committed to git; commit it")
    (root / "dvc.yaml").unlink()
    assert said().startswith("not versioned: no dvc.yaml")


def test_what_only_the_user_can_mend_is_found_before_any_work(root: Path, lone: Merge) -> None:
    push = read_params(root / "params.yaml", ["version.push=true"])
    with pytest.raises(BadInput, match=r"version.push: no DVC remote is set; run dvc remote add --default"):
        check_version(push, root)
    with pytest.raises(BadInput, match=r"version.push: no DVC remote"):
        version_artifacts(push, lone(root / "artifacts"), "a" * 64)
    git(root, "checkout", "--quiet", "-b", "merges")
    with pytest.raises(BadInput, match=r"version.branch: merges is checked out in"):
        version_artifacts(read_params(root / "params.yaml"), root / "artifacts", "a" * 64)
    assert not (root / "dvc.lock").exists()
