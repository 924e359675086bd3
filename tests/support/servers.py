"""Prefect and MLflow servers for tests: on SQLite, or with LORELINE_TEST_STORE=postgresql on PostgreSQL.

    with prefect_server(tmp_path) as prefect, mlflow_server(tmp_path) as mlflow:
        subprocess.run([...], env={**prefect.env, "MLFLOW_TRACKING_URI": mlflow.uri})

A server ends with its block and, when its thread is the main one, with the test process too, however that ends.
"""

import base64
import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.postgresql_cluster import shared_cluster
from tests.support.server_process import Server, free_port, until

__all__ = [
    "CREDENTIALS",
    "MlflowServer",
    "PrefectServer",
    "Servers",
    "both_servers",
    "mlflow_server",
    "prefect_server",
    "until",
]

ON_LAPTOPS = Path(__file__).parents[2] / "flows" / "local_server_process.py"
"""What `loreline serve` runs when no server is configured."""
CREDENTIALS = {
    "PREFECT_API_AUTH_STRING": "ann:Kanarie-of-Prefect",
    "MLFLOW_TRACKING_USERNAME": "ann",
    "MLFLOW_TRACKING_PASSWORD": "Kanarie-of-MLflow",
}
"""What the clients of guarded servers have in their environment."""
ON_POSTGRESQL = os.environ.get("LORELINE_TEST_STORE") == "postgresql"


class PrefectServer(Server):
    """A Prefect server; `env` is what its clients need."""

    def __init__(self, directory: Path, guarded: bool = False, **settings: str) -> None:
        home, self.api_url = directory / "prefect", f"http://127.0.0.1:{free_port()}/api"
        home.mkdir(parents=True)
        quiet = {"PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
        common = {**_plain_environment(), **quiet}
        self.env = {**common, "PREFECT_API_URL": self.api_url}
        self._headers = {"Content-Type": "application/json"}
        if guarded:
            user = self.env["PREFECT_API_AUTH_STRING"] = CREDENTIALS["PREFECT_API_AUTH_STRING"]
            self._headers["Authorization"] = f"Basic {base64.b64encode(user.encode()).decode()}"
            settings["PREFECT_SERVER_API_AUTH_STRING"] = user
        self.store = _new_store("postgresql+asyncpg", f"sqlite+aiosqlite:///{home / 'prefect.db'}")
        own = {**common, "PREFECT_API_DATABASE_CONNECTION_URL": self.store, **settings}
        port = self.api_url.removesuffix("/api").rpartition(":")[2]
        prefect = ["-m", "prefect"] if ON_POSTGRESQL else ["-P", str(ON_LAPTOPS)]
        command = [sys.executable, *prefect, "server", "start", "--host", "127.0.0.1", "--port", port]
        super().__init__(command, own, directory / "prefect.log")

    def answers(self) -> object:
        """Read from the database through the API."""
        return self.post("deployments/filter", limit=1) is not None

    def post(self, path: str, **body: object) -> Any:
        """POST to the API; return the decoded answer."""
        return self.ask(path, json.dumps(body).encode())

    def get(self, path: str) -> Any:
        """GET from the API; return the decoded answer."""
        return self.ask(path, None)

    def delete(self, path: str) -> None:
        """DELETE something."""
        self.ask(path, None, "DELETE")

    def ask(self, path: str, body: bytes | None, method: str | None = None) -> Any:
        """Send a request, by default a POST where there is a body; return the decoded answer.

        A busy database (503) is asked again, as Prefect's own client does it.
        """
        request = urllib.request.Request(f"{self.api_url}/{path}", body, self._headers, method=method)
        for patience in (1, 2, 4, 8):
            try:
                return _answer(request)
            except urllib.error.HTTPError as error:
                if error.code != 503:
                    raise
            time.sleep(patience)
        return _answer(request)


def _answer(request: urllib.request.Request) -> Any:
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read() or b"null")


class MlflowServer(Server):
    """An MLflow tracking server and registry at `uri`, which serves the artifacts too."""

    def __init__(self, directory: Path, *options: str, guarded: bool = False) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.uri = f"http://127.0.0.1:{(port := free_port())}"
        self.store = _new_store("postgresql", f"sqlite:///{directory / 'mlflow.db'}")
        command = ["mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
        kept = [
            "--backend-store-uri",
            self.store,
            "--artifacts-destination",
            str(directory / "mlflow-artifacts"),
        ]
        quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        env = {**_plain_environment(), **quiet}
        if guarded:
            options += ("--app-name", "basic-auth")
            env |= _basic_auth(directory)
        super().__init__([sys.executable, "-m", *command, *kept, *options], env, directory / "mlflow.log")

    def answers(self) -> object:
        """Ask for its health."""
        with urllib.request.urlopen(f"{self.uri}/health", timeout=10) as answer:
            return answer.read() == b"OK"


class Servers(NamedTuple):
    """What a team has running."""

    prefect: PrefectServer
    mlflow: MlflowServer


@contextmanager
def prefect_server(directory: Path, **settings: str) -> Iterator[PrefectServer]:
    """Run a Prefect server that keeps its state in `directory`; `settings` are its environment variables."""
    with _running(server := PrefectServer(directory, **settings)):
        yield server


@contextmanager
def mlflow_server(directory: Path, *options: str) -> Iterator[MlflowServer]:
    """Run an MLflow server that keeps its state in `directory`; `options` go to `mlflow server`."""
    with _running(server := MlflowServer(directory, *options)):
        yield server


@contextmanager
def both_servers(directory: Path, guarded: bool = False, **settings: str) -> Iterator[Servers]:
    """Run both, started side by side; guarded ones ask for CREDENTIALS.

    `settings` are environment variables of Prefect's.
    """
    servers = Servers(PrefectServer(directory, guarded, **settings), MlflowServer(directory, guarded=guarded))
    with _running(*servers):
        yield servers


@contextmanager
def _running(*servers: Server) -> Iterator[None]:
    try:
        for server in servers:
            server.launch()
        for server in servers:
            server.wait()
        yield
    finally:
        for server in servers:
            server.stop()


def _new_store(driver: str, sqlite: str) -> str:
    """Return the URL of an empty database: on the cluster that this process shares, or SQLite."""
    return f"{driver}://{shared_cluster().new_database()}" if ON_POSTGRESQL else sqlite


def _basic_auth(directory: Path) -> dict[str, str]:
    """Configure MLflow's basic-auth app as docs/how-to/team.md says; return its environment."""
    config = directory / "basic_auth.ini"
    config.write_text(
        f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{directory / 'users.db'}\n"
        "auth_cache_ttl_seconds = 60\n"
    )
    return {
        "MLFLOW_AUTH_CONFIG_PATH": str(config),
        "MLFLOW_AUTH_ADMIN_USERNAME": CREDENTIALS["MLFLOW_TRACKING_USERNAME"],
        "MLFLOW_AUTH_ADMIN_PASSWORD": CREDENTIALS["MLFLOW_TRACKING_PASSWORD"],
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "of the tests",
    }


def _plain_environment() -> dict[str, str]:
    """Return this process's environment without what would lead elsewhere than to the servers made here."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
