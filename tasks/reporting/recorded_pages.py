"""The pages that are kept with a version in MLflow, as they were that night, and its step over the nights."""

import tempfile
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from tasks.base.records.registration import Registration
from tasks.parameters.registration import RegisterParams
from tasks.registry.history import merged_runs
from tasks.registry.hub_publication import CARD, hub_card
from tasks.registry.links import REPORT_FILE, place_of_version
from tasks.registry.nights import record_night
from tasks.registry.store import connect, mlflow_errors
from tasks.registry.versions import version_of
from tasks.reporting.history_page import PAGE_FILE, write_history_page
from tasks.reporting.html_report import ReportRecords, html_report
from tasks.reporting.unmerged_table import UnmergedRun

NIGHTS_KEPT = 90
"""Nights on the page that is kept with a run."""


def record_pages(
    params: RegisterParams,
    registration: Registration,
    artifacts: Path,
    unmerged: Sequence[UnmergedRun] = (),
    links: Mapping[str, str] | None = None,
) -> None:
    """Keep report, model card and page over time among the files of a version's MLflow run; a kept one stays.

    `links` are more pages for the report, by their names. Raises Unavailable when MLflow does not answer.
    """
    client, records = connect(params), ReportRecords.read(artifacts)
    with mlflow_errors(client.tracking_uri), tempfile.TemporaryDirectory() as scratch:
        version = version_of(client, registration.name, registration.version)
        record_night(client, version, records.evaluation)
        kept = {file.path for file in client.list_artifacts(registration.run_id)}
        if REPORT_FILE not in kept:
            report = _report(params, registration, records, links or {})
            (Path(scratch) / REPORT_FILE).write_text(report, encoding="utf-8")
            client.log_artifact(registration.run_id, str(Path(scratch) / REPORT_FILE))
        card = artifacts / "merged" / CARD
        if CARD not in kept and card.is_file():
            whole = hub_card(
                card.read_text(encoding="utf-8"), records.merge, records.evaluation, registration.name
            )
            (Path(scratch) / CARD).write_text(whole, encoding="utf-8")
            client.log_artifact(registration.run_id, str(Path(scratch) / CARD))
        if PAGE_FILE not in kept:
            write_history_page(Path(scratch) / PAGE_FILE, params, merged_runs(params, NIGHTS_KEPT), unmerged)
            client.log_artifact(registration.run_id, str(Path(scratch) / PAGE_FILE))


def _report(
    params: RegisterParams, registration: Registration, records: ReportRecords, links: Mapping[str, str]
) -> str:
    """Render the report of the evaluation once more, with date, version and links."""
    client, known = connect(params), merged_runs(params, NIGHTS_KEPT)
    before = next((run for run in known if run.number < registration.version), None)
    former = {"former report": before.report} if before and before.report else {}
    version = place_of_version(client, registration.name, registration.version)
    registered = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    what = f"{registration.name} version {registration.version}"
    return html_report(
        records,
        {"registered": registered, "as": what},
        {"in MLflow": version, **former, **links},
    )
