"""Runs in MLflow: the same from a database file and from a server, brought once, looked at, found by experiment."""

import os
import shutil
from pathlib import Path

import pytest
import torch

from tasks.base.errors import BadInput, Unavailable
from tasks.parameters.registration import RegisterParams
from tasks.registry.store import connect
from tasks.sources.addresses import observe
from tasks.sources.kinds.mlflow import MlflowSource
from tests.support.ended_runs import HOUR, back, finished, recorded_run
from tests.support.mlflow_runs import fetch_checkpoints, log_run, value_of
from tests.support.tiny import write_checkpoint


@pytest.fixture(params=["file", pytest.param("server", marks=pytest.mark.servers)])
def params(request: pytest.FixtureRequest) -> RegisterParams:
    """Name a store: a database file on this machine, or a server that keeps the files."""
    if request.param == "file":
        return request.getfixturevalue("store")  # type: ignore[no-any-return]
    return RegisterParams(tracking_uri=request.getfixturevalue("mlflow_uri"))


def times(directory: Path) -> dict[str, tuple[int, int]]:
    paths = [directory, *directory.rglob("*")]
    return {str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in paths}


def test_checkpoints_are_taken_in_step_order_without_a_pickle(params: RegisterParams, output: Path) -> None:
    source = f"mlflow:/runs/{log_run(params, output, 'deep/my checkpoints')}/deep/my checkpoints"
    found = fetch_checkpoints(source, params)
    assert [(c.step, c.name, value_of(c.directory), c.address) for c in found] == [
        (20, "checkpoint-20", 20.0, f"{source}/checkpoint-20"),
        (100, "checkpoint-100", 100.0, f"{source}/checkpoint-100"),
    ]
    assert {path.name for path in found[0].directory.iterdir()} == {
        "model.safetensors", "config.json", "tokenizer.json", "trainer_state.json", "manifest.json",
    }  # fmt: skip
    assert [MlflowSource().restore(c.address) for c in found] == [c.directory for c in found]


def test_a_store_on_this_machine_is_linked_and_not_touched(store: RegisterParams, output: Path) -> None:
    run = log_run(store, output)
    [artifacts] = Path(os.environ["LORELINE_HOME"]).glob(f"mlartifacts/{run}/artifacts/checkpoints")
    before = times(artifacts)
    found = fetch_checkpoints(f"mlflow:/runs/{run}/checkpoints", store)
    weights = artifacts / "checkpoint-20" / "model.safetensors"
    assert weights.samefile(found[0].directory / "model.safetensors")
    assert times(artifacts) == before


@pytest.mark.servers
def test_a_run_that_was_resumed_is_read_anew(served: RegisterParams, output: Path) -> None:
    """MLflow tells no digests: a file of the same size may be another one once the run has another end."""
    run = log_run(served, output)
    source = f"mlflow:/runs/{run}/checkpoints"
    before = observe(source, 60, served)
    fetch_checkpoints(source, served)
    shutil.rmtree(output / "checkpoint-20")
    write_checkpoint(output, 20, {"w": torch.full((4,), 21.0)})
    client = connect(served)
    client.update_run(run, status="RUNNING")
    client.log_artifacts(run, str(output / "checkpoint-20"), "checkpoints/checkpoint-20")
    client.set_terminated(run)
    assert observe(source, 60, served).digest != before.digest
    assert value_of(fetch_checkpoints(source, served)[0].directory) == 21.0


# --- how it looks to the watcher --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "ended", "reason"),
    [
        ("FINISHED", True, "the MLflow run finished"),
        ("FAILED", True, "the MLflow run failed"),
        ("KILLED", True, "the MLflow run was killed"),
        (None, False, "still training: the MLflow run is RUNNING"),
    ],
)
@pytest.mark.servers
def test_a_served_run_has_ended_when_mlflow_says_so(
    served: RegisterParams, output: Path, status: str | None, ended: bool, reason: str
) -> None:
    """A server tells no times of files: a run that nobody ended is left alone, however long."""
    source = f"mlflow:/runs/{log_run(served, output, status=status)}/checkpoints"
    seen = observe(source, 0, served)
    assert (seen.ended, seen.reason) == (ended, reason)
    assert observe(source, 0, served) == seen


def test_a_run_that_mlflow_thinks_is_running_has_ended_when_its_files_are_old(
    store: RegisterParams, tmp_path: Path
) -> None:
    """A training process that was killed tells MLflow nothing."""
    output = finished(tmp_path, 10, 20)
    run = log_run(store, output, status=None)
    source = f"mlflow:/runs/{run}/checkpoints"
    [artifacts] = Path(os.environ["LORELINE_HOME"]).glob(f"mlartifacts/{run}/artifacts/checkpoints")
    os.utime(artifacts / "checkpoint-20" / "config.json")
    running = observe(source, HOUR, store)
    assert (running.ended, running.reason) == (
        False, "still training: the MLflow run is RUNNING, last change 0 s ago",
    )  # fmt: skip
    back(artifacts, 2 * HOUR)
    quiet = observe(source, HOUR, store)
    assert (quiet.ended, quiet.reason) == (True, "unchanged for 2 h (the MLflow run is RUNNING)")
    assert quiet.digest == running.digest
    write_checkpoint(artifacts, 30)
    assert observe(source, HOUR, store).digest != quiet.digest


def test_a_run_has_the_digest_that_it_always_had(store: RegisterParams, tmp_path: Path) -> None:
    """Recorded at 75a5440: with another one, every run would be merged again."""
    run = log_run(store, recorded_run(tmp_path), status=None)
    connect(store).set_terminated(run, "FINISHED", end_time=1_700_000_000_000)
    recorded = "bc9c2064e698137a340679c494dba1788e8cffe21c7f21a4fe2ba86c2b0818fd"
    assert observe(f"mlflow:/runs/{run}/checkpoints", HOUR, store).digest == recorded


# --- what goes wrong --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    ["mlflow:/runs", "mlflow:/runs/0af3", "mlflow:/runs//checkpoints", "mlflow:/runs/0af3/../../x", "mlflow:/runs/0af3/a/./b",
     "mlflow:/runs/0af3/a//b", "mlflow://me:s3cret@host/runs/0af3/a", "mlflow:/models/x/1", "mlflow:/runs/0af3/a?token=s3cret"],
)  # fmt: skip
def test_a_malformed_source_is_refused_without_being_quoted(source: str) -> None:
    with pytest.raises(BadInput, match="not an MLflow address; write mlflow:/runs/RUN_ID/PATH") as told:
        fetch_checkpoints(source, RegisterParams(tracking_uri="http://127.0.0.1:1"))
    assert "s3cret" not in str(told.value)


def test_no_such_run_a_deleted_one_and_no_such_path(params: RegisterParams, output: Path) -> None:
    nowhere = f"mlflow:/runs/{'0' * 32}/checkpoints"
    with pytest.raises(BadInput, match=f"{nowhere}: no such run in .*; check the run id"):
        fetch_checkpoints(nowhere, params)
    run = log_run(params, output)
    with pytest.raises(BadInput, match="/elsewhere: holds no checkpoint-N directory; name what they were"):
        fetch_checkpoints(f"mlflow:/runs/{run}/elsewhere", params)
    connect(params).delete_run(run)
    with pytest.raises(BadInput, match=f"the run is deleted; .* mlflow runs restore --run-id {run}"):
        observe(f"mlflow:/runs/{run}/checkpoints", 0, params)


def test_a_server_that_is_down_is_unavailable_without_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://bob:hunter2@127.0.0.1:1")
    with pytest.raises(
        Unavailable, match=r"^http://127\.0\.0\.1:1: the MLflow server does not answer"
    ) as told:
        fetch_checkpoints("mlflow:/runs/0af3/checkpoints", RegisterParams())
    assert "hunter2" not in str(told.value)


def test_a_lost_copy_says_what_to_do(own_state: Path) -> None:
    with pytest.raises(BadInput, match="checkpoint-3: is not kept here any more; loreline fetch --refresh"):
        MlflowSource().restore("mlflow:/runs/0af3/checkpoints/checkpoint-3")
