"""The HTML report of an evaluation: one file that needs nothing else."""

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, Self

from tasks.base.errors import without_secrets
from tasks.base.records.evaluation import Evaluation
from tasks.base.records.merge import MergeReport
from tasks.base.records.selection import Selection
from tasks.base.records.training_run import TrainingRun
from tasks.reporting.lore_figure import farthest
from tasks.reporting.lore_matrices import decomposed
from tasks.reporting.lore_summary import summarise
from tasks.reporting.lore_table import LORE_HEADER, LORE_LEGEND, lore_rows
from tasks.reporting.page import VERDICT_COLOURS, render_page
from tasks.reporting.report_charts import (
    conflict_chart,
    cosines_table,
    gains_chart,
    guards_chart,
    norms_chart,
    ranks_table,
    spectra_chart,
    trajectory_chart,
)
from tasks.reporting.table import EVALUATION_HEADER, evaluation_tables

REPORT_PAGE = """
<h1>{{ run.name }}
<span class="badge" style="background: {{ colour }}">{{ evaluation.verdict.decision }}</span></h1>
<p class="about">
{% for name, value in about.items() %}{{ name }}: {{ value }}{{ " · " if not loop.last }}{% endfor %}
{% for name, address in links.items() %}
 · {% if address.startswith(("http:", "https:")) %}
<a href="{{ address }}" target="_blank" rel="noopener">{{ name }}</a>
{% else %}{{ name }}: {{ address }}{% endif %}{% endfor %}</p>
<p class="verdict" style="border-color: {{ colour }}">{{ evaluation.verdict.sentence }}</p>
<h2>What was measured</h2>
{% for metric, rows in tables.items() %}
<h3>{{ metric }}{{ directions.get(metric, "") }}{{ ", which decides" if loop.first }}</h3>
{% if loop.first %}{{ charts.gains | safe }}{% endif %}
<table><tr>{% for cell in header %}<th>{{ cell }}</th>{% endfor %}</tr>
{% for row in rows %}<tr{% if row[0] == merged %} class="merge"{% endif %}>
{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table>
{% endfor %}
<p class="about">Brackets are 95 % intervals over the test items; gains are paired, item by item, positive
when the merge is better; p is that of the exact test of no gain, where there is one.</p>
{% if charts.guards %}<h3>What the other metrics show</h3>
{{ charts.guards | safe }}
<p class="about">A metric holds where its interval, at 5 % one-sided, lies above minus one margin.</p>
{% endif %}
<h2>What was merged</h2>
<p>{{ merge.method }} of {{ merge.inputs | length }} checkpoints, chosen by {{ selection.rule }}:
{% for source in merge.inputs %}{{ source.label }}{{ ", " if not loop.last }}{% endfor %}.</p>
{% for sentence in selection.planned %}<p>{{ sentence }}</p>{% endfor %}
{% if merge.notes %}<ul>{% for note in merge.notes %}<li>{{ note }}</li>{% endfor %}</ul>{% endif %}
{% if charts.trajectory %}<h3>Trajectory</h3>{{ charts.trajectory | safe }}{% endif %}
<h3>Parameters</h3>
<table>{% for name, value in parameters %}<tr><td>{{ name }}</td><td>{{ value }}</td></tr>
{% endfor %}</table>
{% if selection.left_out %}<details><summary>{{ selection.left_out | length }} left out</summary><ul>
{% for left in selection.left_out %}<li>{{ left.name }}: {{ left.reason }}</li>
{% endfor %}</ul></details>{% endif %}
{% if lore %}<h2>What LoRE found</h2>
<ul>{% for sentence in lore.sentences %}<li>{{ sentence }}</li>
{% endfor %}</ul>
{% if charts.spectra %}<h3>Singular values of the task vectors in {{ lore.matrix }}</h3>
{{ charts.spectra | safe }}
<p>How the checkpoints differ from their common base θ₀ in the matrix where the result lies farthest from
averaging (rings). LoRE lowers every singular value by the threshold μ: what remains is the low-rank task
vector δᵢ (dots), what lies below μ is taken for noise.</p>
<h3>Active rank, in % of full rank</h3>
{{ charts.ranks | safe }}
<p>How many singular values lie above μ; 0 is plain averaging.</p>
<table><tr>{% for cell in lore.header %}<th>{{ cell }}</th>{% endfor %}</tr>
{% for row in lore.rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table>
<p>{{ lore.legend }}</p>{% endif %}{% endif %}
{% if charts.norms %}<h2>How the checkpoints lie to each other</h2>
<p>{% if merge.parameters.base %}Task vectors are differences from the base; in sign conflict is what one
checkpoint raises and another lowers.{% else %}Task vectors are differences from the checkpoints' mean:
they add up to zero, so cosines are below zero on average.{% endif %}</p>
<h3>Norm of the task vectors, over that of the weights they are differences from</h3>{{ charts.norms | safe }}
{% if charts.cosines %}<h3>Cosines, whole model</h3>{{ charts.cosines | safe }}{% endif %}
{% if charts.conflict %}<h3>Sign conflict</h3>{{ charts.conflict | safe }}{% endif %}{% endif %}
</html>
"""


class ReportRecords(NamedTuple):
    """What a report tells of."""

    run: TrainingRun
    selection: Selection
    merge: MergeReport
    evaluation: Evaluation

    @classmethod
    def read(cls, artifacts: Path) -> Self:
        """Read the records of the stages before."""
        return cls(
            run=TrainingRun.read(artifacts / "run" / "run.json"),
            selection=Selection.read(artifacts / "selection" / "selection.json"),
            merge=MergeReport.read(artifacts / "merged" / "merge.json"),
            evaluation=Evaluation.read(artifacts / "evaluation" / "evaluation.json"),
        )


def html_report(
    records: ReportRecords, facts: Mapping[str, str] | None = None, links: Mapping[str, str] | None = None
) -> str:
    """Render verdict, tables, charts and provenance; everything from the run is escaped.

    `facts` and `links` are what is known only later, as date and version: the same records alone give the
    same bytes.
    """
    run, _, merge, evaluation = records
    return render_page(
        REPORT_PAGE,
        f"{run.name}: {evaluation.verdict.decision}",
        **records._asdict(),
        merged=next(model.label for model in evaluation.models if model.role == "merge"),
        about={**(facts or {}), "from": without_secrets(run.source), "Loreline": version("loreline")},
        links=links or {},
        tables=evaluation_tables(evaluation),
        directions=_directions(evaluation),
        header=EVALUATION_HEADER,
        parameters=_flat(merge.parameters),
        charts=_charts(records),
        lore=_lore(merge),
        colour=VERDICT_COLOURS[evaluation.verdict.decision],
    )


def _directions(evaluation: Evaluation) -> dict[str, str]:
    """Say which way each metric is better, as far as it was recorded."""
    known = evaluation.higher_is_better
    words = {True: " (higher is better)", False: " (lower is better)"}
    return {metric: words[known[metric]] for metric in known}


def _charts(records: ReportRecords) -> dict[str, str]:
    """Draw what there is to draw; what is missing or empty is not shown."""
    run, selection, merge, evaluation = records
    charts = {
        "gains": gains_chart(evaluation),
        "guards": guards_chart(evaluation),
        "trajectory": trajectory_chart(run.checkpoints, selection),
    }
    if (found := summarise(merge)) and found.matrices:
        charts |= {"spectra": spectra_chart(merge), "ranks": ranks_table(merge)}
    if merge.deviations:
        charts["norms"] = norms_chart(merge)
        if len(merge.inputs) > 1:
            charts["cosines"] = cosines_table(merge)
        if len(merge.inputs) > 1 and "base" in merge.parameters:  # from a mean nearly all is in conflict
            charts["conflict"] = conflict_chart(merge)
    return charts


def _flat(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return parameters by their dotted names."""
    found = []
    for key, value in sorted(tree.items()):
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{key}.")
        else:
            found.append((f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value)))
    return found


def _lore(merge: MergeReport) -> dict[str, Any] | None:
    """Return what the section on LoRE says; None for other methods."""
    if (summary := summarise(merge)) is None:
        return None
    matrices = decomposed(merge.tensors)
    return {
        "sentences": summary.sentences,
        "matrix": farthest(matrices) if matrices else None,
        "header": LORE_HEADER,
        "rows": lore_rows(merge.tensors),
        "legend": LORE_LEGEND,
    }
