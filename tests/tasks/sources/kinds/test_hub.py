"""Runs on the Hub: found by name, pinned to commits, and looked at without downloading weights."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.base.errors import BadInput
from tasks.checkpoints.layout import read_tensors, side_files
from tasks.fetch_run import fetch_run
from tasks.parameters.fetch import FetchParams
from tasks.sources.staging import staged
from tests.support.hub_checkpoints import REPO, checkpoint, download, names, restore, value_of
from tests.support.hub_server import Hub

# --- which checkpoints, in which order ------------------------------------------------------------


def test_revisions_are_taken_by_pattern_in_numeric_order(server: Hub) -> None:
    repo = server.repos["lab/model"]
    repo.commit(checkpoint(0), branch="main")
    repo.commit(checkpoint(9), branch="step9")
    repo.commit(checkpoint(1000), tag="step1000")
    repo.commit(checkpoint(200), branch="step200")
    repo.commit(checkpoint(1), branch="step-final")
    repo.commit(checkpoint(2), branch="other2")

    run = download(f"{REPO}@step*")

    assert [(c.step, c.name, value_of(c.directory)) for c in run] == [
        (9, "step9", 9.0),
        (200, "step200", 200.0),
        (1000, "step1000", 1000.0),
    ]
    assert [c.address for c in run] == [
        f"{REPO}@{repo.resolve(name)}" for name in ("step9", "step200", "step1000")
    ]


def test_folders_of_a_branch_are_taken_in_numeric_order(server: Hub) -> None:
    repo = server.repos["lab/model"]
    files = (
        checkpoint(7) | checkpoint(1000, under="checkpoint-1000/") | checkpoint(30, under="checkpoint-30/")
    )
    main = repo.commit(files | checkpoint(5, under="checkpoint-best/"), branch="main")
    repo.commit(checkpoint(40, under="checkpoint-40/"), branch="dev/run")

    assert [(c.step, c.name, value_of(c.directory), c.address) for c in download(REPO)] == [
        (30, "checkpoint-30", 30.0, f"{REPO}@{main}/checkpoint-30"),
        (1000, "checkpoint-1000", 1000.0, f"{REPO}@{main}/checkpoint-1000"),
    ]
    assert [c.step for c in download(f"{REPO}@dev/run")] == [40]


def test_only_weights_and_configuration_are_downloaded(server: Hub) -> None:
    """No pickle, no code, nothing from folders that were not asked for."""
    repo = server.repos["lab/model"]
    repo.commit(checkpoint(1) | checkpoint(2, under="old/"), branch="step1")
    repo.commit(checkpoint(3, under="checkpoint-3/") | checkpoint(4, under="checkpoint-3/x/"), branch="main")

    [revision] = download(f"{REPO}@step*")
    [folder] = download(REPO)

    wanted = {"model.safetensors", "config.json", "trainer_state.json", "merges.txt"}
    assert names(revision.directory) == names(folder.directory) == wanted
    assert not server.asked("optimizer.pt") + server.asked("modeling.py") + server.asked("old/")


def test_what_is_downloaded_is_a_checkpoint_to_the_rest_of_loreline(server: Hub) -> None:
    """The links that the cache is made of are not taken for links out of the checkpoint."""
    server.repos["lab/model"].commit(checkpoint(3, under="checkpoint-3/"), branch="main")
    [folder] = download(REPO)
    assert list(read_tensors(folder.directory)) == ["w"]
    assert [path.name for path in side_files(folder.directory)] == ["config.json", "merges.txt"]


def test_fetch_records_and_stages_a_hub_run(server: Hub, tmp_path: Path) -> None:
    """The whole stage: from revisions to a manifest whose files come back when they are lost."""
    for step in (9, 10):
        server.repos["lab/model"].commit(checkpoint(step), branch=f"runs/step{step}")
    artifacts = tmp_path / "artifacts"
    run = fetch_run(FetchParams(source=f"{REPO}@runs/step*"), artifacts)
    assert [(c.step, c.name) for c in run.checkpoints] == [(9, "runs/step9"), (10, "runs/step10")]
    assert all(len(c.source.rpartition("@")[2]) == 40 for c in run.checkpoints)
    assert "optimizer.pt" not in {file.name for file in run.checkpoints[0].files}
    shutil.rmtree(artifacts / "checkpoints")
    assert value_of(staged(run.checkpoints[1], artifacts)) == 10


# --- pinned ---------------------------------------------------------------------------------------


def test_a_branch_that_moves_mid_run_changes_nothing(server: Hub) -> None:
    repo = server.repos["lab/model"]
    for step in (1, 2):
        repo.commit(checkpoint(step), branch=f"step{step}")
    before = dict(repo.branches)
    resolve = repo.resolve

    def move_once_files_are_asked_for(revision: str) -> str | None:
        if server.asked("HEAD "):
            repo.commit(checkpoint(99), branch="step2")
        return resolve(revision)

    repo.resolve = move_once_files_are_asked_for  # type: ignore[method-assign]
    run = download(f"{REPO}@step*")

    assert repo.branches != before
    assert [value_of(c.directory) for c in run] == [1.0, 2.0]
    assert run[1].address == f"{REPO}@{before['step2']}"


def test_a_pinned_source_gives_the_same_bytes_again(server: Hub, tmp_path: Path) -> None:
    """Both from the cache, without a single request, and from the Hub when the cache is gone."""
    repo = server.repos["lab/model"]
    repo.commit(checkpoint(1), branch="step1")
    repo.commit(checkpoint(3, under="checkpoint-3/") | checkpoint(4, under="checkpoint-4/"), branch="main")
    sources = [c.address for c in download(f"{REPO}@step*") + download(REPO)]
    repo.commit(checkpoint(99), branch="step1")
    server.requests.clear()
    assert [value_of(restore(source)) for source in sources] == [1.0, 3.0, 4.0]
    assert server.requests == []

    (tmp_path / "hf" / "hub").rename(tmp_path / "lost")
    assert value_of(restore(sources[1])) == 3.0
    assert not server.asked("checkpoint-4")


# --- errors that the user can mend ----------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    ["lab/model", "hf://model", "hf://lab/model@", "hf://lab/model/main", "hf://../x@step*", "hf://a--b/c",
     "hf://user:s3cret@host/model", "hf://lab/model@a b", "hf://lab/model@/etc/x", "hf://lab/model@../../etc/1*"],
)  # fmt: skip
def test_a_malformed_source_is_refused_without_being_quoted(server: Hub, source: str) -> None:
    with pytest.raises(BadInput, match="not a Hub address; write hf://org/name") as caught:
        download(source)
    assert "s3cret" not in str(caught.value)
    with pytest.raises(BadInput, match="not pinned"):
        restore(source)
    assert server.requests == []


def test_a_pinned_source_must_name_a_whole_commit(server: Hub) -> None:
    with pytest.raises(BadInput, match="not pinned"):
        restore(f"{REPO}@main")


def test_no_such_repository_or_revision(server: Hub) -> None:
    with pytest.raises(BadInput, match="no such repository, or a private one"):
        download(f"{REPO}@step*")
    server.repos["lab/model"].commit(checkpoint(1), branch="main")
    with pytest.raises(BadInput, match="dev: no such branch, tag or commit"):
        download(f"{REPO}@dev")
    with pytest.raises(BadInput, match="no such branch, tag or commit"):
        restore(f"{REPO}@{'0' * 40}")


def test_a_pattern_that_matches_nothing_says_what_there_is(server: Hub) -> None:
    repo = server.repos["lab/model"]
    repo.commit(checkpoint(1), branch="main")
    repo.commit(checkpoint(2), tag="iter_20")
    with pytest.raises(BadInput, match=r"step\*: no branch or tag matches .*there is iter_20, main"):
        download(f"{REPO}@step*")


def test_no_checkpoint_folder(server: Hub) -> None:
    server.repos["lab/model"].commit(checkpoint(1), branch="main")
    with pytest.raises(BadInput, match="has no checkpoint-N folder; name another branch"):
        download(REPO)


def test_gated_without_access(server: Hub) -> None:
    server.repos["lab/model"].commit(checkpoint(1), branch="step1")
    server.repos["lab/model"].gated = True
    with pytest.raises(BadInput, match="is gated; ask for access"):
        download(f"{REPO}@step*")


def test_a_commit_of_pickles_only_is_refused_as_such(server: Hub) -> None:
    server.repos["lab/model"].commit({"pytorch_model.bin": b"a pickle"}, branch="step1")
    with pytest.raises(BadInput, match=r"no model\.safetensors"):
        download(f"{REPO}@step*")


def test_importing_the_module_does_not_import_huggingface_hub() -> None:
    script = "import sys, tasks.sources.kinds.hub; assert 'huggingface_hub' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)
