"""The page over time of a registered model: one HTML file that needs nothing else."""

import base64
import tempfile
from collections.abc import Sequence
from datetime import datetime
from itertools import groupby
from pathlib import Path

from tasks.base.errors import BadInput
from tasks.base.records import Evaluation, Registration
from tasks.parameters.registration import RegisterParams
from tasks.registry.evidence import recorded_evaluations
from tasks.registry.history import MergedRun, merged_runs
from tasks.registry.looks import Look, looks_of
from tasks.registry.store import connect, mlflow_errors
from tasks.reporting.figures import VERDICT_COLOURS
from tasks.reporting.history_figure import Night, draw_history
from tasks.reporting.html_report import shown_in_html
from tasks.reporting.looks_table import looks_table

PAGE_FILE = "history.html"
NIGHTS_KEPT = 90
"""Nights on the page that is kept with a run."""
NIGHTS_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ name }}</title>
<style>
 body { font: 15px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem }
 table { border-collapse: collapse; font-variant-numeric: tabular-nums; display: block; overflow-x: auto }
 td, th { padding: .3rem .8rem; border-bottom: 1px solid #ddd; text-align: left; vertical-align: top }
 img { max-width: 100% }
 pre { overflow-x: auto }
</style>
<h1>{{ name }}</h1>
{% for picture in pictures %}<p><img alt="" src="data:image/png;base64,{{ picture | safe }}"></p>
{% endfor %}
<p>Bars are 95 % intervals. Above: the deciding metric of merges and champion. Below: the gain that the
verdict rests on, and beside it, as a diamond, the gain on the vault.</p>
<h2>Nights</h2>
<table><tr><th>when</th><th>run</th><th>version</th><th>verdict</th></tr>
{% for night in nights %}<tr><td>{{ night.when }}</td><td>{{ night.run }}</td><td>{{ night.version }}</td>
<td style="border-left: 4px solid {{ night.colour }}">{{ night.sentence }}</td></tr>
{% endfor %}</table>
<h2>Looks</h2>
<pre>{{ looks }}</pre>
</html>
"""


def write_history_page(path: Path, params: RegisterParams, runs: Sequence[MergedRun]) -> None:
    """Write the page of merged runs, the newest first, with what the registry keeps of them."""
    client = connect(params)
    with mlflow_errors(client.tracking_uri):
        evaluations = recorded_evaluations(client, [run.model for run in runs])
        looks = looks_of(client, params.name)
    nights = [
        Night(run, judged, _vault_look(judged, looks))
        for run in reversed(runs)
        if (judged := evaluations.get(run.model))
    ]
    try:
        path.write_text(history_page(params.name, nights, looks), encoding="utf-8")
    except OSError as error:
        raise BadInput(path, f"cannot be written ({error.strerror})", "name another file") from None


def record_history(params: RegisterParams, registration: Registration) -> None:
    """Keep the page, as it was with this version, among the files of its MLflow run; a kept one stays."""
    client = connect(params)
    with mlflow_errors(client.tracking_uri):
        if PAGE_FILE in [file.path for file in client.list_artifacts(registration.run_id)]:
            return
    with tempfile.TemporaryDirectory() as scratch:
        page = Path(scratch) / PAGE_FILE
        write_history_page(page, params, merged_runs(params, NIGHTS_KEPT))
        with mlflow_errors(client.tracking_uri):
            client.log_artifact(registration.run_id, str(page))


def _vault_look(evaluation: Evaluation, looks: Sequence[Look]) -> Look | None:
    """Return the look at a vault that an evaluation's merge took last."""
    merge = next(model.digest for model in evaluation.models if model.role == "merge")
    taken = [look for look in looks if look.asked.kind == "vault" and look.asked.merge == merge]
    return taken[-1] if taken else None


def history_page(name: str, nights: Sequence[Night], looks: Sequence[Look]) -> str:
    """Render nights, the oldest first, and the looks that they took; everything from the runs is escaped."""
    import jinja2

    return (
        jinja2.Environment(autoescape=True, finalize=shown_in_html)
        .from_string(NIGHTS_PAGE)
        .render(
            name=name,
            pictures=_pictures(nights),
            nights=[_row(night) for night in reversed(nights)],
            looks=looks_table(looks),
        )
    )


def _pictures(nights: Sequence[Night]) -> list[str]:
    """Draw the nights of each primary metric, the metric of the newest night first."""
    by_metric = sorted(nights, key=lambda night: night.evaluation.primary)  # stable: each stays in order
    groups = [list(own) for _, own in groupby(by_metric, key=lambda night: night.evaluation.primary)]
    groups.sort(key=lambda own: -own[-1].run.when)
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        for own in groups:
            path = Path(scratch) / "history.png"
            draw_history(path, own)
            found.append(base64.b64encode(path.read_bytes()).decode())
    return found


def _row(night: Night) -> dict[str, str]:
    run, verdict = night.run, night.evaluation.verdict
    return {
        "when": datetime.fromtimestamp(run.when).astimezone().strftime("%Y-%m-%d %H:%M"),
        "run": run.run or "-",
        "version": f"{run.model} ({', '.join(run.aliases)})" if run.aliases else run.model,
        "sentence": verdict.sentence,
        "colour": VERDICT_COLOURS[verdict.decision],
    }
