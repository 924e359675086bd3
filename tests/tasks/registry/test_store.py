import http.server
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.base.errors import BadInput, LorelineError, Unavailable, without_secrets
from tasks.parameters.registration import RegisterParams
from tasks.registry.store import PROBE_S, connect, experiment, mlflow_errors, uri_of
from tasks.registry.versions import champion


def test_default_store_lies_in_the_state_directory(store: RegisterParams, own_state: Path) -> None:
    client = connect(store)
    location = client.get_experiment(experiment(client, "demo")).artifact_location
    assert client.tracking_uri == f"sqlite:///{own_state}/loreline/mlflow.db"
    assert location == (own_state / "loreline" / "mlartifacts").as_uri()
    assert os.environ["MLFLOW_ALLOW_MODEL_CODE_EXECUTION"] == "false"
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_parameter_goes_before_environment_before_default(
    store: RegisterParams, own_state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = (own_state / "loreline" / "mlflow.db").rename(own_state / "elsewhere.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")
    assert connect(store).tracking_uri == f"sqlite:///{database}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    assert connect(RegisterParams(tracking_uri=f"sqlite:///{database}"))


def test_connecting_leaves_no_global_address_behind(store: RegisterParams) -> None:
    connect(store)
    assert "MLFLOW_TRACKING_URI" not in os.environ


def test_connecting_says_nothing(store: RegisterParams) -> None:
    code = "from tasks.parameters.params import RegisterParams as P; from tasks.registry.store import connect; connect(P())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_experiment_is_created_once(store: RegisterParams) -> None:
    client = connect(store)
    assert experiment(client, "demo") == experiment(client, "demo")


def test_deleted_experiment_is_not_revived(store: RegisterParams) -> None:
    client = connect(store)
    client.delete_experiment(experiment(client, "demo"))
    with pytest.raises(
        BadInput, match=r"demo is deleted; run mlflow experiments restore --experiment-id \d+"
    ):
        experiment(client, "demo")


def test_closed_port_is_unavailable_at_once_and_without_credentials(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://bob:hunter2@127.0.0.1:1")
    started = time.monotonic()
    with pytest.raises(
        Unavailable, match=r"^http://127\.0\.0\.1:1: the MLflow server does not answer"
    ) as told:
        connect(RegisterParams())
    assert time.monotonic() - started < 5
    assert "hunter2" not in str(told.value)


def test_server_that_hangs_is_given_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sum(PROBE_S) < 15
    monkeypatch.setattr("tasks.registry.store.PROBE_S", (1, 1))
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        started = time.monotonic()
        with pytest.raises(Unavailable, match="does not answer"):
            connect(RegisterParams(tracking_uri=f"http://127.0.0.1:{silent.getsockname()[1]}"))
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("uri", "what"),
    [
        ("http://", "not a usable address"),
        ("http://not a host", "not a usable address"),
        ("sqlite://", "would keep nothing"),
        ("sqlite:///:memory:", "would keep nothing"),
        ("sqlite:////proc/nowhere/mlflow.db", "not usable as an MLflow database"),
        ("file:///tmp/mlruns", "not a store that MLflow keeps models in"),
        ("mlruns", "not a store that MLflow keeps models in"),
        ("ftp://bob:hunter2@host/x", "not a store that MLflow keeps models in"),
        ("postgresql+nodriver://bob:hunter2@127.0.0.1:1/x", "postgresql"),
    ],
)
def test_broken_address_is_bad_input(uri: str, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)  # where credentials may stand
    with pytest.raises(LorelineError, match=what) as told:
        connect(RegisterParams())
    assert "hunter2" not in str(told.value)
    assert "\n" not in str(told.value)


def test_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("somebody's letters " * 100)
    with pytest.raises(
        BadInput, match=r"mlflow\.db: not usable as an MLflow database \(file is not a database"
    ):
        connect(RegisterParams(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db"))
    assert (tmp_path / "mlflow.db").read_text().startswith("somebody's")


class Answer(http.server.BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.end_headers()

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def stranger(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Run a server that is not MLflow, or not well; retries are off."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://bob:hunter2@127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, BadInput), (403, BadInput), (404, BadInput), (500, Unavailable), (503, Unavailable)],
)
def test_refusals_and_failures_are_told_apart(
    stranger: str, status: int, kind: type[LorelineError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Answer, "status", status)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", stranger)
    params = RegisterParams()
    with pytest.raises(kind, match=rf"^http://127\.0\.0\.1:\d+: .*{status}") as told:
        champion(connect(params), params)
    assert "hunter2" not in str(told.value)
    assert told.value.__suppress_context__


def test_message_of_a_failure_carries_no_credentials() -> None:
    from mlflow.exceptions import MlflowException

    with pytest.raises(Unavailable) as told, mlflow_errors("https://bob:hunter2@host"):
        raise MlflowException("request to https://bob:hunter2@host/api?token=abc failed")
    assert "hunter2" not in str(told.value)
    assert "abc" not in str(told.value)


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("http://bob:p@ss@host:5000/x", "http://host:5000/x"),
        ("https://token@host", "https://host"),
        ("to https://a:b@host/x?sig=1 and https://c:d@other", "to https://host/x and https://other"),
        ("sqlite:////tmp/a@b.db", "sqlite:////tmp/a@b.db"),
        ("mail bob@host about 1/2", "mail bob@host about 1/2"),
    ],
)
def test_secrets_are_removed_and_nothing_else(text: str, safe: str) -> None:
    assert without_secrets(text) == safe


@pytest.mark.parametrize("rest", ["/hunter2", "?hunter2", "#hunter2", " hunter2", "@hunter2", "hunter2@x"])
@pytest.mark.parametrize("scheme", ["http", "postgresql", "postgresql+psycopg2", "sqlite"])
def test_a_password_that_ends_early_is_refused_and_not_told(
    scheme: str, rest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What follows would be a host, or a database: drivers name those in their errors."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{scheme}://bob:pass{rest}@127.0.0.1:1/mlflow")
    with pytest.raises(BadInput, match="MLFLOW_TRACKING_URI: .*%2F") as caught:
        connect(RegisterParams())
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "uri",
    ["http://bob:a%2F%40@host:5000/x", "http://host:5000/a@b", "sqlite:////data/a@b.db", "http://tok@host"],
)
def test_addresses_that_are_whole_are_taken(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert uri_of(RegisterParams()) == uri


def test_a_database_that_does_not_answer_is_given_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow itself would try for two minutes."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://bob:hunter2@127.0.0.1:9/mlflow")
    begun = time.monotonic()
    with pytest.raises(Unavailable, match="127.0.0.1:9") as caught:
        connect(RegisterParams())
    assert time.monotonic() - begun < 30
    assert "hunter2" not in str(caught.value)
