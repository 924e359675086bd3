"""Addresses of pages in MLflow: of versions, and of the files of a run."""

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from tasks.base.errors import without_secrets

if TYPE_CHECKING:
    from mlflow import MlflowClient

REPORT_FILE = "report.html"
"""The report of a version, among the files of its MLflow run."""


def place_of_file(client: "MlflowClient", run: Any, path: str) -> str:
    """Return the page of a run's file; where there is no server, its address in the store."""
    if (server := _server(client)) is None:
        return f"runs:/{run.info.run_id}/{path}"
    return f"{server}/{_page_of_file(run, path)}"


def link_to_file(run: Any, path: str) -> str:
    """Return a Markdown link to a run's file that holds wherever the description is shown."""
    return f"[Report](./{_page_of_file(run, path)})"


def place_of_version(client: "MlflowClient", name: str, number: int) -> str:
    """Return the page of a version; where there is no server, its address in the registry."""
    if (server := _server(client)) is None:
        return f"models:/{name}/{number}"
    return f"{server}/#/models/{quote(name, safe='')}/versions/{number}"


def _page_of_file(run: Any, path: str) -> str:
    return f"#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}/artifacts/{quote(path)}"


def _server(client: "MlflowClient") -> str | None:
    uri: str = client.tracking_uri
    return without_secrets(uri).rstrip("/") if uri.startswith(("http:", "https:")) else None
