"""Connecting to MLflow: the store's address, one writer at a time, errors as ours."""

import logging
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests
from filelock import FileLock

from tasks.base.directories import cache_dir, state_dir
from tasks.base.errors import BadInput, LorelineError, Unavailable, without_secrets
from tasks.base.json_digest import digest_of
from tasks.parameters.registration import RegisterParams
from tasks.registry.sqlite_store import ensure_database

if TYPE_CHECKING:
    from mlflow import MlflowClient

PROBE_S = (4, 8)  # to connect, to answer
SQLITE = "sqlite:///"
CUT_PASSWORD = re.compile(r"[\w+]+://[^\s/@:]*:(?!\d+(?:[/?]|$))[^@]*[/?#\s@].*@", re.DOTALL)
"""user:password@ with more in the password than an address may hold as it is."""
DATABASES = ("postgresql", "mysql")
SCHEMES = (*DATABASES, "mssql", "databricks")


def connect(params: RegisterParams) -> "MlflowClient":
    """Return a client of the store that the parameters, the environment or the state directory name.

    Raises Unavailable when its server does not answer, BadInput for an address that cannot be used.
    """
    uri = uri_of(params)
    _set_environment()
    _probe(uri)
    with mlflow_errors(uri), store_lock(uri):
        from mlflow import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        if (database := _database(uri)) and (artifacts := _artifacts(uri)):
            ensure_database(database, artifacts)
        return MlflowClient(uri, registry_uri=uri)


def uri_of(params: RegisterParams) -> str:
    """Return the address of the store, which may hold a password.

    Raises BadInput for a password that ends early: its rest would be a host, which drivers quote.
    """
    uri = (
        params.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}{state_dir() / 'mlflow.db'}"
    )
    if CUT_PASSWORD.match(uri):
        raise BadInput(
            "MLFLOW_TRACKING_URI",
            "its password holds a character that ends it",
            "write / ? # @ and space in it as %2F %3F %23 %40 %20",
        )
    return uri


def place_of(uri: str) -> str:
    """Return a store's name for messages: its SQLite file, or its address without secrets."""
    return str(_database(uri) or without_secrets(uri))


def experiment(client: "MlflowClient", name: str) -> str:
    """Return the id of the experiment called `name`, creating it when there is none."""
    found = client.get_experiment_by_name(name)
    if found is None:
        return str(client.create_experiment(name, artifact_location=_artifacts(client.tracking_uri)))
    if found.lifecycle_stage != "active":
        raise BadInput(
            "register.name",
            f"the MLflow experiment {name} is deleted",
            f"run mlflow experiments restore --experiment-id {found.experiment_id}, or choose another name",
        )
    return str(found.experiment_id)


@contextmanager
def mlflow_errors(uri: str) -> Iterator[None]:
    """Turn what MLflow raises into BadInput (it refused) or Unavailable (it could not answer)."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except MlflowException as error:
        status: int = error.get_http_status_code()  # type: ignore[no-untyped-call]
        if status in (401, 403):
            raise _access_error(uri, status, error) from None
        refused = 400 <= status < 500 and status != 429
        raise _mlflow_error(BadInput if refused else Unavailable, uri, error) from None
    except (requests.RequestException, SQLAlchemyError) as error:
        answer = getattr(error, "response", None)
        if answer is not None and answer.status_code in (401, 403):
            raise _access_error(uri, answer.status_code, error) from None
        raise _mlflow_error(Unavailable, uri, error) from None
    except ModuleNotFoundError as error:
        raise BadInput(
            "register.tracking_uri",
            f"{without_secrets(uri)} needs the Python package {error.name}",
            "install it, or name an MLflow server",
        ) from None


def store_lock(uri: str, name: str = "") -> FileLock:
    """Return the lock that lets one process on this machine write to a store's model at a time."""
    locks = cache_dir() / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    return FileLock(locks / digest_of(["registry", place_of(uri), name]))


def unless_missing(ask: Callable[[], Any]) -> Any:
    """Return what `ask` returns; None when MLflow has no such thing."""
    from mlflow.exceptions import MlflowException

    try:
        return ask()
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def ensure_registered(client: "MlflowClient", name: str) -> None:
    """Create the registered model unless it is there."""
    from mlflow.exceptions import MlflowException

    if unless_missing(lambda: client.get_registered_model(name)) is None:
        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # Another machine was first.
                raise


def _set_environment() -> None:
    """Set MLflow, before it is imported, to run no model code, send no telemetry and not print to stdout."""
    os.environ["MLFLOW_ALLOW_MODEL_CODE_EXECUTION"] = "false"
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # MLflow's own 7 retries with factor 2 take four minutes; these take a quarter of one.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "4")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")


def _probe(uri: str) -> None:
    if uri.startswith(("http:", "https:")):
        _ask_server(uri)
    elif uri.startswith("sqlite:"):
        _open_sqlite(uri)
    elif not uri.startswith(SCHEMES):
        raise BadInput(
            "register.tracking_uri",
            f"{without_secrets(uri)} is not a store that MLflow keeps models in",
            "write http(s)://server or sqlite:////path/to/mlflow.db",
        )
    elif uri.startswith(DATABASES):
        _ask_database(uri)


def _ask_database(uri: str) -> None:
    """Raise Unavailable within seconds where no database answers; MLflow itself would try for two minutes."""
    import sqlalchemy
    from sqlalchemy.pool import NullPool

    with mlflow_errors(uri):
        engine = sqlalchemy.create_engine(
            uri, poolclass=NullPool, connect_args={"connect_timeout": PROBE_S[0]}
        )
        engine.connect().close()


def _ask_server(uri: str) -> None:
    """Raise Unavailable within seconds where no server answers; MLflow itself would retry for minutes."""
    server = without_secrets(uri)
    try:
        requests.get(uri, timeout=PROBE_S, allow_redirects=False, stream=True).close()
    except requests.exceptions.SSLError:
        pass  # It answered; MLflow has settings of its own for certificates.
    except (requests.ConnectionError, requests.Timeout):
        raise Unavailable(
            server,
            "the MLflow server does not answer",
            "start it, or correct register.tracking_uri (or MLFLOW_TRACKING_URI), then run the "
            "same command again",
        ) from None
    except (requests.RequestException, ValueError):
        raise BadInput("register.tracking_uri", f"{server} is not a usable address", "correct it") from None


def _open_sqlite(uri: str) -> None:
    """Raise at once for an unusable SQLite file; MLflow itself would retry for a minute and a half."""
    path = _database(uri)
    if path is None:
        raise BadInput(
            "register.tracking_uri", f"{uri} would keep nothing", "write sqlite:////path/to/mlflow.db"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA schema_version")
    except (OSError, sqlite3.Error) as error:
        kind = Unavailable if "locked" in str(error) else BadInput
        raise kind(
            path,
            f"not usable as an MLflow database ({error})",
            "correct register.tracking_uri or the file",
        ) from None


def _database(uri: str) -> Path | None:
    name = uri.removeprefix(SQLITE).partition("?")[0]
    return Path(name).absolute() if uri.startswith(SQLITE) and name not in ("", ":memory:") else None


def _artifacts(uri: str) -> str | None:
    """Return where a new experiment keeps its files: beside a SQLite database, else as the server decides."""
    database = _database(uri)
    return (database.parent / "mlartifacts").as_uri() if database else None


def _access_error(uri: str, status: int, error: Exception) -> BadInput:
    """Say that a server asks for other credentials (401), or does not allow this to their user (403)."""
    if status == 401:
        return BadInput(
            place_of(uri),
            f"does not take the credentials of the environment, or there are none ({status})",
            "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (or MLFLOW_TRACKING_TOKEN) there",
        )
    return BadInput(
        place_of(uri),
        f"does not allow this to the user of the environment: {_told(error)}",
        "let MLflow's administrator grant EDIT on the model and on the experiment of its name",
    )


def _mlflow_error(kind: type[LorelineError], uri: str, error: Exception) -> LorelineError:
    """Return MLflow's error as ours: shortened, without credentials, with a remedy."""
    remedy = (
        "correct the register section and run again"
        if kind is BadInput
        else "run the same command again when MLflow answers; nothing is registered twice"
    )
    return kind(place_of(uri), f"MLflow says: {_told(error)}", remedy)


def _told(error: Exception) -> str:
    return without_secrets(" ".join(str(error).split()))[:300].rstrip(". ")
