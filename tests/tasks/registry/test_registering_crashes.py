"""Registering is killed, cut off or done twice at once: there is still one version, run and model."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tasks.base.errors import LorelineError
from tasks.parameters.registration import RegisterParams
from tasks.register_model import register_model
from tests.support.registered import Killed, assert_registered_once

ROOT = Path(__file__).parents[3]
CHANGES = [
    "create_experiment",
    "create_run",
    "create_logged_model",
    "finalize_logged_model",
    "log_batch",
    "log_outputs",
    "log_artifact",
    "set_tag",
    "set_terminated",
    "create_registered_model",
    "create_model_version",
    "set_logged_model_tags",
    "set_registered_model_alias",
]


@pytest.mark.parametrize("method", CHANGES)
def test_killed_after_any_change_the_next_run_completes_it(
    store: RegisterParams, make_artifacts: Any, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Dying before a change is dying after the one before it; reading changes nothing."""
    from mlflow import MlflowClient

    artifacts = make_artifacts()
    work = getattr(MlflowClient, method)

    def die(*args: Any, **kwargs: Any) -> None:
        work(*args, **kwargs)
        raise Killed

    monkeypatch.setattr(MlflowClient, method, die)
    with pytest.raises(Killed):
        register_model(store, artifacts)
    assert not (artifacts / "registration").exists()
    monkeypatch.setattr(MlflowClient, method, work)
    assert_registered_once(store, artifacts)


def test_killed_while_linking_the_next_run_completes_it(
    store: RegisterParams, make_artifacts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifacts, link = make_artifacts(), os.link
    left = iter([1, 1, 0])

    def die(*args: Any) -> None:
        if not next(left):
            raise Killed
        link(*args)

    monkeypatch.setattr(os, "link", die)
    with pytest.raises(Killed):
        register_model(store, artifacts)
    monkeypatch.setattr(os, "link", link)
    assert_registered_once(store, artifacts)


def test_time_out_after_success_leaves_one_of_each(
    store: RegisterParams, make_artifacts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow's own retries repeat a request that succeeded unseen: every creation happens twice."""
    from mlflow import MlflowClient

    for method in ("create_run", "create_logged_model", "create_model_version"):
        work = getattr(MlflowClient, method)

        def twice(*args: Any, work: Any = work, **kwargs: Any) -> Any:
            work(*args, **kwargs)
            return work(*args, **kwargs)

        monkeypatch.setattr(MlflowClient, method, twice)
    assert_registered_once(store, make_artifacts())


def test_answer_that_never_came_is_unavailable_and_retried_by_hand(
    store: RegisterParams, make_artifacts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    artifacts, work = make_artifacts(), MlflowClient.create_model_version

    def cut(*args: Any, **kwargs: Any) -> None:
        work(*args, **kwargs)
        raise MlflowException("API request to http://bob:hunter2@h/api failed with timeout exception")

    monkeypatch.setattr(MlflowClient, "create_model_version", cut)
    with pytest.raises(
        LorelineError, match="run the same command again .* nothing is registered twice"
    ) as told:
        register_model(store, artifacts)
    assert told.value.exit_code == 1
    assert "hunter2" not in str(told.value)
    monkeypatch.setattr(MlflowClient, "create_model_version", work)
    assert_registered_once(store, artifacts)


def test_two_threads_register_one_version(store: RegisterParams, make_artifacts: Any) -> None:
    artifacts = make_artifacts()
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: register_model(store, artifacts), range(2))
    assert first == second
    assert_registered_once(store, artifacts)


def test_two_processes_register_one_version(store: RegisterParams, make_artifacts: Any) -> None:
    artifacts = make_artifacts()
    code = (
        "import sys; from pathlib import Path; from tasks.parameters.params import RegisterParams as P;"
        "from tasks.register_model import register_model; register_model(P(name='demo'), Path(sys.argv[1]))"
    )
    command = [sys.executable, "-c", code, str(artifacts)]
    both = [subprocess.Popen(command, cwd=ROOT) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert_registered_once(store, artifacts)
