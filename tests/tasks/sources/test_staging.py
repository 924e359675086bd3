"""Staged checkpoints outlive the training directory, and come back from the source when they are lost."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.base.errors import BadInput
from tasks.fetch_run import fetch_run
from tasks.parameters.fetch import FetchParams
from tasks.parameters.registration import RegisterParams
from tasks.sources.kinds.mlflow import address_of
from tasks.sources.staging import staged
from tests.support.mlflow_runs import log_run


@pytest.fixture
def training(make_checkpoint: Callable[..., Path]) -> Path:
    make_checkpoint(100)
    return make_checkpoint(20).parent


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    return tmp_path / "artifacts"


def params(training: Path) -> FetchParams:
    return FetchParams(source=str(training), settle=0)


def test_staged_checkpoints_outlive_the_training_directory(training: Path, artifacts: Path) -> None:
    run = fetch_run(params(training), artifacts)
    shutil.rmtree(training)
    assert (staged(run.checkpoints[0], artifacts) / "model.safetensors").is_file()
    assert fetch_run(params(training), artifacts) == run  # a finished run does not change


def test_lost_staged_files_come_back_from_the_source(training: Path, artifacts: Path) -> None:
    run = fetch_run(params(training), artifacts)
    shutil.rmtree(artifacts / "checkpoints")
    assert (staged(run.checkpoints[0], artifacts) / "model.safetensors").is_file()
    shutil.rmtree(artifacts / "checkpoints")
    shutil.rmtree(training)
    with pytest.raises(BadInput, match="checkpoint-20: gone"):
        staged(run.checkpoints[0], artifacts)


def test_a_source_that_changed_after_it_was_fetched_is_refused(training: Path, artifacts: Path) -> None:
    run = fetch_run(params(training), artifacts)
    weights = training / "checkpoint-20" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)  # in place: the staged link changes with it
    with pytest.raises(BadInput, match="changed since it was fetched"):
        staged(run.checkpoints[0], artifacts)
    again = fetch_run(params(training), artifacts, refresh=True)
    assert again.digest != run.digest


def test_lost_staged_files_of_a_run_in_mlflow_come_back_from_the_cache(
    training: Path, artifacts: Path, store: RegisterParams
) -> None:
    """Without asking MLflow; and when the cache is gone too, what to do is said, and helps."""
    source = f"mlflow:/runs/{log_run(store, training)}/checkpoints"
    run = fetch_run(FetchParams(source=source), artifacts, registry=store)
    shutil.rmtree(artifacts / "checkpoints")
    assert (staged(run.checkpoints[0], artifacts) / "model.safetensors").is_file()
    shutil.rmtree(artifacts / "checkpoints")
    shutil.rmtree(address_of(source).cached)
    with pytest.raises(BadInput, match="checkpoint-20: is not kept here any more; loreline fetch --refresh"):
        staged(run.checkpoints[0], artifacts)
    assert fetch_run(FetchParams(source=source), artifacts, refresh=True, registry=store) == run
    assert (staged(run.checkpoints[0], artifacts) / "model.safetensors").is_file()


def test_what_else_lies_beside_staged_checkpoints_stays(training: Path, artifacts: Path) -> None:
    first = fetch_run(params(training), artifacts)
    mine = artifacts / "checkpoints" / "mine"
    (mine / "checkpoint-9").mkdir(parents=True)
    (mine.parent / "NOTES.md").write_text("why")
    (mine.parent / "link-0123456789abcdef").symlink_to(mine)
    shutil.rmtree(training / "checkpoint-20")
    fetch_run(params(training), artifacts, refresh=True)
    left = {path.name for path in mine.parent.iterdir()}
    kept, gone = (first.checkpoints[i] for i in (1, 0))
    assert left == {"mine", "NOTES.md", "link-0123456789abcdef", f"{kept.name}-{kept.sample[:16]}"}
    assert gone.name == "checkpoint-20"
    assert (mine / "checkpoint-9").is_dir()


@pytest.mark.parametrize("mine", ["NOTES.md", "checkpoint-500/model.safetensors"])
def test_what_a_user_put_into_a_staged_checkpoint_is_named_and_stays(
    training: Path, artifacts: Path, mine: str
) -> None:
    run = fetch_run(params(training), artifacts)
    [staged_here] = (artifacts / "checkpoints").glob("checkpoint-20-*")
    (staged_here / mine).parent.mkdir(exist_ok=True)
    (staged_here / mine).write_text("x")
    for act in (
        lambda: staged(run.checkpoints[0], artifacts),
        lambda: fetch_run(params(training), artifacts, True),
    ):
        with pytest.raises(BadInput, match="is not what was staged"):
            act()
    assert (staged_here / mine).read_text() == "x"


@pytest.mark.parametrize("where", ["", "checkpoint-20"])
def test_nothing_is_staged_in_the_training_directory(training: Path, artifacts: Path, where: str) -> None:
    artifacts.mkdir()
    (artifacts / "checkpoints").symlink_to(training / where)
    before = sorted(training.rglob("*"))
    with pytest.raises(BadInput, match="is a link into the training directory"):
        fetch_run(params(training), artifacts)
    assert sorted(training.rglob("*")) == before
