"""The runs of an MLflow experiment, found by the experiment's name."""

import os
from pathlib import Path

import pytest

from tasks.base.errors import BadInput, Unavailable
from tasks.parameters.registration import RegisterParams
from tasks.registry.store import connect, experiment
from tasks.sources.addresses import sources_in
from tests.support.mlflow_runs import log_run
from tests.support.tiny import write_checkpoint

NOWHERE = RegisterParams(tracking_uri="http://127.0.0.1:1")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Make a project with a training run, and a directory without one."""
    write_checkpoint(tmp_path / "project" / "runs" / "a", 10)
    (tmp_path / "project" / "runs" / "empty").mkdir()
    return tmp_path / "project"


def test_an_experiment_gives_its_active_runs_with_checkpoints(
    store: RegisterParams, project: Path, tmp_path: Path
) -> None:
    """Runs without, as Loreline's own, deleted ones and those of other experiments are left out."""
    training, other = project / "runs" / "a", project / "runs" / "empty"
    finished, running = log_run(store, training), log_run(store, training, status=None)
    elsewhere, deep = log_run(store, training, "out"), log_run(store, training, "deep/out")
    log_run(store, other)
    log_run(store, training, experiment_name="other")
    deleted = log_run(store, training)
    connect(store).delete_run(deleted)
    connect(store).create_run(experiment(connect(store), "training"))

    def found(root: str) -> list[str]:
        return sources_in([root], project, store)

    assert found("mlflow:/experiments/training") == sorted(
        f"mlflow:/runs/{run}/checkpoints" for run in (finished, running)
    )
    assert found("mlflow:/experiments/training/") == found("mlflow:/experiments/training/checkpoints")
    assert found("mlflow:/experiments/training/out") == [f"mlflow:/runs/{elsewhere}/out"]
    assert found("mlflow:/experiments/training/deep/out") == [f"mlflow:/runs/{deep}/deep/out"]
    assert found("mlflow:/experiments/training/nothing") == []


def test_the_name_of_an_experiment_may_hold_slashes(store: RegisterParams, project: Path) -> None:
    training = project / "runs" / "a"
    first = log_run(store, training, experiment_name="team/qa")
    second = log_run(store, training, "out/checkpoints", experiment_name="team/qa")
    assert sources_in(["mlflow:/experiments/team/qa"], project, store) == [
        f"mlflow:/runs/{first}/checkpoints"
    ]
    assert sources_in(["mlflow:/experiments/team/qa/out/checkpoints"], project, store) == [
        f"mlflow:/runs/{second}/out/checkpoints"
    ]


def test_all_pages_of_an_experiment_are_read(
    store: RegisterParams, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    search = MlflowClient.search_runs
    monkeypatch.setattr(
        MlflowClient, "search_runs", lambda self, *args, **more: search(self, *args, max_results=2, **more)
    )
    runs = [log_run(store, project / "runs" / "a") for _ in range(5)]
    assert sources_in(["mlflow:/experiments/training"], project, store) == sorted(
        f"mlflow:/runs/{run}/checkpoints" for run in runs
    )


def test_an_experiment_that_is_not_there(store: RegisterParams, project: Path) -> None:
    store_file = f"{os.environ['LORELINE_HOME']}/mlflow.db"
    with pytest.raises(
        BadInput, match=f"watch.roots: mlflow:/experiments/x: no such .* in .*{store_file}; correct"
    ):
        sources_in(["mlflow:/experiments/x"], project, store)
    connect(store).delete_experiment(experiment(connect(store), "gone"))
    with pytest.raises(BadInput, match="no such experiment"):
        sources_in(["mlflow:/experiments/gone"], project, store)


@pytest.mark.parametrize(
    "root", ["mlflow:/experiments/", "mlflow:/runs/0af3/a", "mlflow://me:s3cret@host/experiments/x"]
)
def test_a_malformed_experiment_is_refused_without_being_quoted(project: Path, root: str) -> None:
    with pytest.raises(BadInput, match="not an MLflow experiment; write mlflow:/experiments/NAME") as told:
        sources_in([root], project, NOWHERE)
    assert "s3cret" not in str(told.value)


def test_a_server_that_is_down_is_unavailable(project: Path) -> None:
    with pytest.raises(Unavailable, match="the MLflow server does not answer"):
        sources_in(["mlflow:/experiments/x"], project, NOWHERE)
