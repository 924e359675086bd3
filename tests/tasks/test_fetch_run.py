"""Fetch takes finished checkpoints only, never touches the source, and survives its rotation."""

import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tasks.base.errors import BadInput
from tasks.base.records.registration import Registration
from tasks.fetch_run import fetch_run
from tasks.merge_checkpoints import merge_checkpoints
from tasks.parameters.fetch import FetchParams
from tasks.parameters.merge import MergeParams
from tasks.parameters.registration import RegisterParams
from tasks.parameters.selection import SelectParams
from tasks.select_checkpoints import select_checkpoints
from tasks.sources import readiness
from tasks.sources.staging import staged
from tests.support.mlflow_runs import log_run
from tests.support.tiny import write_checkpoint


@pytest.fixture
def training(make_checkpoint: Callable[..., Path]) -> Path:
    for step in (300, 20, 100):
        make_checkpoint(step)
    return make_checkpoint(200).parent


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    return tmp_path / "artifacts"


def params(training: Path, wait: float = 0.0) -> FetchParams:
    return FetchParams(source=str(training), settle=0, wait=wait)


def snapshot(directory: Path) -> list[tuple[str, int, int, bytes]]:
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return [(str(p), p.stat().st_size, p.stat().st_mtime_ns, p.read_bytes()) for p in files]


def test_every_checkpoint_is_recorded_in_step_order_with_its_metrics(training: Path, artifacts: Path) -> None:
    run = fetch_run(params(training), artifacts)
    assert [checkpoint.step for checkpoint in run.checkpoints] == [20, 100, 200, 300]
    assert run.checkpoints[1].metrics == {"loss": 1.0, "eval_loss": 0.01}
    assert {file.name for file in run.checkpoints[0].files} == {
        "config.json", "model.safetensors", "tokenizer.json", "trainer_state.json",
    }  # fmt: skip


def test_the_source_is_not_touched_and_weights_are_not_copied(training: Path, artifacts: Path) -> None:
    before = snapshot(training)
    run = fetch_run(params(training), artifacts)
    assert snapshot(training) == before
    link = staged(run.checkpoints[0], artifacts) / "model.safetensors"
    assert link.samefile(training / "checkpoint-20" / "model.safetensors")


def end(training: Path, step: int) -> None:
    """Let the newest checkpoint say that it was the last one, some time ago."""
    state = training / f"checkpoint-{step}" / "trainer_state.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), "max_steps": step}))
    for path in (training, *training.rglob("*")):
        os.utime(path, (time.time() - 60,) * 2)


def test_a_run_that_still_trains_is_fetched_with_a_warning(
    training: Path, artifacts: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fetch_run(params(training), artifacts)
    assert "still training: step 300" in caplog.text
    caplog.clear()
    fetch_run(params(training), artifacts, refresh=True, quiet_for=0)
    end(training, 300)
    fetch_run(params(training), artifacts, refresh=True)
    assert not caplog.messages


def test_a_run_that_grew_is_looked_at_again_by_itself(
    training: Path, artifacts: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fetch_run(params(training), artifacts)
    write_checkpoint(training, 400)
    end(training, 400)
    caplog.clear()
    run = fetch_run(params(training), artifacts)
    assert [checkpoint.step for checkpoint in run.checkpoints] == [20, 100, 200, 300, 400]
    assert "checkpoint-400 and later were not there when it was fetched; looking again" in caplog.text
    assert fetch_run(params(training), artifacts) == run


def test_a_run_whose_merge_is_registered_stays_as_it_was_merged(
    training: Path, artifacts: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = fetch_run(params(training), artifacts)
    select_checkpoints(SelectParams(), artifacts)
    report = merge_checkpoints(MergeParams(method="average"), artifacts)
    registration = Registration(
        name="m", version=1, model_id="i", run_id="r", digest=report.digest, aliases=()
    )
    registered = artifacts / "registration" / "registration.json"
    registered.parent.mkdir()
    registration.write(registered)
    write_checkpoint(training, 400)
    assert fetch_run(params(training), artifacts) == run
    assert "checkpoint-400 and later were not there when it was fetched; --refresh" in caplog.text
    registration.model_copy(update={"digest": "of another merge"}).write(registered)
    assert fetch_run(params(training), artifacts).checkpoints[-1].step == 400


def test_what_is_not_selected_is_never_digested(training: Path, artifacts: Path) -> None:
    run = fetch_run(params(training), artifacts)
    assert [one.is_digested for one in run.checkpoints] == [False, False, False, True]
    selection = select_checkpoints(SelectParams(k=2), artifacts)
    assert [one.step for one in selection.chosen] == [200, 300]
    assert all(one.is_digested for one in (*selection.chosen, selection.last))
    assert fetch_run(params(training), artifacts) == run


def test_checkpoints_that_differ_where_no_sample_is_taken_are_told_apart(
    tmp_path: Path, artifacts: Path
) -> None:
    """By their digests, as those that are the same are."""
    weights = torch.zeros(2**20)
    for step, at in ((10, 0), (20, 2001), (30, 0)):
        weights[2001] = at
        training = write_checkpoint(tmp_path / "training", step, {"w": weights}).parent
    run = fetch_run(params(training), artifacts)
    assert len({one.sample for one in run.checkpoints}) == 1
    selection = select_checkpoints(SelectParams(k=3), artifacts)
    assert [one.step for one in selection.chosen] == [10, 20]
    assert [left.reason for left in selection.left_out] == ["holds the same weights as checkpoint-10"]


def test_the_same_run_gives_the_same_bytes(training: Path, artifacts: Path) -> None:
    fetch_run(params(training), artifacts)
    first = snapshot(artifacts / "run")
    shutil.rmtree(artifacts)
    fetch_run(params(training), artifacts)
    assert [(a, b, d) for a, b, _, d in snapshot(artifacts / "run")] == [(a, b, d) for a, b, _, d in first]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda c: (c / "trainer_state.json").unlink(), "has no trainer_state.json"),
        (lambda c: (c / "trainer_state.json").write_text('{"global_step": 2'), "cannot be read yet"),
        (lambda c: (c / "trainer_state.json").write_text('{"global_step": 199}'), "is of step 199"),
    ],
)
def test_an_unfinished_checkpoint_is_left_out_and_reported(
    training: Path, artifacts: Path, damage, reason: str
) -> None:
    damage(training / "checkpoint-200")
    run = fetch_run(params(training), artifacts)
    assert [checkpoint.step for checkpoint in run.checkpoints] == [20, 100, 300]
    assert reason in run.left_out[0].reason


def test_an_unfinished_checkpoint_is_waited_for(training: Path, artifacts: Path, monkeypatch) -> None:
    monkeypatch.setattr(readiness, "LOOK_AGAIN_S", 0.05)
    state = training / "checkpoint-200" / "trainer_state.json"
    text = state.read_text()
    state.unlink()
    threading.Timer(0.3, state.write_text, [text]).start()
    run = fetch_run(params(training, wait=10), artifacts)
    assert len(run.checkpoints) == 4


def test_a_checkpoint_that_changes_between_two_looks_is_left_out(
    training: Path, artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    growing = training / "checkpoint-200" / "tokenizer.json"
    monkeypatch.setattr(time, "sleep", lambda seconds: growing.write_text("more" * 9))
    run = fetch_run(params(training), artifacts)
    assert [left.name for left in run.left_out] == ["checkpoint-200"]


def test_a_truncated_shard_of_a_finished_checkpoint_stops_the_fetch(training: Path, artifacts: Path) -> None:
    weights = training / "checkpoint-200" / "model.safetensors"
    os.truncate(weights, weights.stat().st_size - 1)
    with pytest.raises(BadInput, match=r"checkpoint-200/model.safetensors: truncated"):
        fetch_run(params(training), artifacts)
    assert not (artifacts / "run").exists()


def test_a_directory_without_checkpoints_says_so(tmp_path: Path, artifacts: Path) -> None:
    with pytest.raises(BadInput, match="no such directory"):
        fetch_run(params(tmp_path / "missing"), artifacts)
    with pytest.raises(BadInput, match="no checkpoint-N directory"):
        fetch_run(params(tmp_path), artifacts)
    (tmp_path / "checkpoint-5").mkdir()
    with pytest.raises(BadInput, match=r"no usable checkpoint \(checkpoint-5 has no trainer_state.json"):
        fetch_run(params(tmp_path), artifacts)


def test_another_run_replaces_the_staged_files_of_the_former(
    training: Path, artifacts: Path, make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    fetch_run(params(training), artifacts)
    other = write_checkpoint(tmp_path / "other", 7, {"w": torch.ones(2)}).parent
    fetch_run(params(other), artifacts)
    assert [path.name.split("-")[1] for path in (artifacts / "checkpoints").iterdir()] == ["7"]


def test_metrics_that_are_not_numbers_are_ignored(
    make_checkpoint: Callable[..., Path], artifacts: Path
) -> None:
    directory = make_checkpoint(1)
    state = {"global_step": 1, "log_history": [{"step": 1, "note": "x", "eval_acc": 1}]}
    (directory / "trainer_state.json").write_text(json.dumps(state))
    assert fetch_run(params(directory.parent), artifacts).checkpoints[0].metrics == {"eval_acc": 1.0}


def test_a_run_in_mlflow_gives_what_its_directory_gives(
    training: Path, artifacts: Path, tmp_path: Path, store: RegisterParams
) -> None:
    """The same checkpoints under another name; and the training directory and MLflow's copy stay as they are."""
    source = f"mlflow:/runs/{log_run(store, training)}/checkpoints"
    before = snapshot(training), snapshot(Path(os.environ["LORELINE_HOME"]) / "mlartifacts")
    run = fetch_run(FetchParams(source=source), artifacts, registry=store)
    local = fetch_run(params(training), tmp_path / "local")
    assert run.digest == local.digest
    assert run.name == source.split("/")[2][:8]
    assert [checkpoint.source for checkpoint in run.checkpoints] == [
        f"{source}/checkpoint-{step}" for step in (20, 100, 200, 300)
    ]
    assert [checkpoint.metrics for checkpoint in run.checkpoints] == [c.metrics for c in local.checkpoints]
    assert (snapshot(training), snapshot(Path(os.environ["LORELINE_HOME"]) / "mlartifacts")) == before


def test_a_checkpoint_whose_upload_is_incomplete_stops_the_fetch(
    training: Path, artifacts: Path, store: RegisterParams
) -> None:
    (training / "checkpoint-200" / "trainer_state.json").write_text('{"global_step": 199}')
    source = f"mlflow:/runs/{log_run(store, training)}/checkpoints"
    with pytest.raises(
        BadInput, match=f"{source}/checkpoint-200: .* is of step 199; its upload is incomplete"
    ):
        fetch_run(FetchParams(source=source), artifacts, registry=store)
    (training / "checkpoint-200" / "trainer_state.json").unlink()
    source = f"mlflow:/runs/{log_run(store, training)}/checkpoints"  # logged without its state, as on the Hub
    assert len(fetch_run(FetchParams(source=source), artifacts, registry=store).checkpoints) == 4
