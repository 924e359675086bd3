"""Checking the registry: its store, its aliases, and promotions that were cut off."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import requests

from tasks.base.errors import BadInput, LorelineError, without_secrets
from tasks.doctor.finding import Finding
from tasks.doctor.probe import WAIT_S, clock_of, probe, unguarded
from tasks.parameters.registration import RegisterParams
from tasks.registry.alias_changes import AliasChange, age_of, alias_state
from tasks.registry.promotion import CHANGE_LEASE_S
from tasks.registry.store import SQLITE, mlflow_errors, uri_of
from tasks.registry.versions import version_of

if TYPE_CHECKING:
    import sqlalchemy
    from mlflow import MlflowClient

_QUICK = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": f"{WAIT_S:.0f}",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_MODEL_CODE_EXECUTION": "false",
}


def check_registry(params: RegisterParams) -> list[Finding]:
    """Check the store that the parameters name, and the registered model; no store is made."""
    os.environ.update(_QUICK)
    uri = uri_of(params)
    store, usable = _server(uri) if uri.startswith(("http:", "https:")) else _database(uri)
    return [*store, *_model(uri, params.name)] if usable else store


def judge_aliases(name: str, aliases: Mapping[str, int], there: Sequence[int]) -> list[Finding]:
    """Report the versions that aliases point at, and those that do not exist."""
    pointing = ", ".join(f"{alias} → {number}" for alias, number in sorted(aliases.items()))
    found = [Finding("Registry", name, pointing or "no alias is set yet")]
    for alias, number in sorted(aliases.items()):
        if number not in there:
            remedy = "loreline promote --version N, or loreline rollback"
            text = f"{alias} points at version {number}, which does not exist"
            found.append(Finding("Registry", name, text, "problem", remedy))
    return found


def judge_moves(moves: Sequence[AliasChange], ages: Sequence[float]) -> list[Finding]:
    """Report promotions and rollbacks that are under way or were cut off; `ages` in seconds."""
    found = []
    for move, seconds in zip(moves, ages, strict=True):
        text = f"a {move.kind} to version {move.version} by {move.by} "
        if seconds < CHANGE_LEASE_S:
            found.append(Finding("Registry", "promotion", f"{text}is under way"))
        else:
            text += f"was cut off {seconds / 60:.0f} min ago"
            remedy = "loreline promote or loreline rollback completes or reverts it first"
            found.append(Finding("Registry", "promotion", text, "warning", remedy))
    return found


def _server(uri: str) -> tuple[list[Finding], bool]:
    server = without_secrets(uri).rstrip("/")
    try:
        answer = probe(f"{uri.rstrip('/')}/version")
    except (requests.RequestException, ValueError):
        text = f"{server} is not a usable address"
        return [Finding("Registry", "store", text, "problem", "correct register.tracking_uri")], False
    if answer is None:
        text, remedy = (
            f"{server} does not answer",
            "start the MLflow server, or correct register.tracking_uri",
        )
        return [Finding("Registry", "store", text, "problem", remedy)], False
    number = answer.text if answer.status == 200 and len(answer.text) < 20 else "of unknown version"
    told = f"{server}, behind a password" if answer.status == 401 else f"{server}, MLflow {number}"
    return [
        Finding("Registry", "store", told),
        *clock_of("MLflow server", answer),
        *unguarded("Registry", uri, "api/2.0/mlflow/experiments/get?experiment_id=0"),
    ], True


def _database(uri: str) -> tuple[list[Finding], bool]:
    """Check a database without making one; MLflow itself would create it and its tables."""
    import sqlalchemy
    from sqlalchemy.exc import SQLAlchemyError

    place = without_secrets(uri).removeprefix(SQLITE)
    if uri.startswith(SQLITE) and not Path(place).is_file():
        return [Finding("Registry", "store", f"{place} will be made by the first run")], False
    try:
        tables = sqlalchemy.inspect(_engine(uri)).get_table_names()
    except (SQLAlchemyError, ImportError) as error:
        text = f"{place}: {without_secrets(' '.join(str(error).split()))[:200]}"
        remedy = "correct register.tracking_uri (or MLFLOW_TRACKING_URI), or the database"
        return [Finding("Registry", "store", text, "problem", remedy)], False
    if "registered_models" not in tables:
        return [Finding("Registry", "store", f"{place}: the first run will make its tables")], False
    return [Finding("Registry", "store", place)], True


def _engine(uri: str) -> "sqlalchemy.Engine":
    """Return an engine that waits seconds for a server; PostgreSQL's and MySQL's drivers wait for minutes."""
    import sqlalchemy

    waits = uri.startswith(("postgresql", "mysql"))
    return sqlalchemy.create_engine(uri, connect_args={"connect_timeout": int(WAIT_S)} if waits else {})


def _model(uri: str, name: str) -> list[Finding]:
    """Check the registered model."""
    try:
        with mlflow_errors(uri):
            from mlflow import MlflowClient

            client = MlflowClient(uri, registry_uri=uri)
            now = alias_state(client, name)
            there = [number for number in set(now.aliases.values()) if _exists(client, name, number)]
            newest = _newest(client, name)
    except LorelineError as error:
        return [Finding("Registry", name, f"{error.subject}: {error.problem}", "problem", error.remedy)]
    if newest is None:
        return [Finding("Registry", name, "not registered yet: the first merge does it")]
    found = [Finding("Registry", "versions", f"the newest of {name} is {newest}")]
    found += judge_aliases(name, now.aliases, there)
    return found + judge_moves(now.moves, [age_of(move) for move in now.moves])


def _exists(client: "MlflowClient", name: str, number: int) -> bool:
    try:
        version_of(client, name, number)
    except BadInput:
        return False
    return True


def _newest(client: "MlflowClient", name: str) -> int | None:
    found = client.search_model_versions(f"name = '{name}'", max_results=1, order_by=["version_number DESC"])
    return int(found[0].version) if found else None
