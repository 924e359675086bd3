"""The HTML report of an evaluation: one file that needs nothing else."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasks.base.errors import plain_lines
from tasks.base.records import Evaluation, MergeReport, Selection
from tasks.reporting.figures import VERDICT_COLOURS
from tasks.reporting.lore_summary import summarise
from tasks.reporting.lore_table import LORE_HEADER, LORE_LEGEND, lore_rows
from tasks.reporting.table import EVALUATION_HEADER, evaluation_tables

TEMPLATE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{{ selection.run }}: {{ evaluation.verdict.decision }}</title>
<style>
 body { font: 15px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem }
 table { border-collapse: collapse; font-variant-numeric: tabular-nums; display: block; overflow-x: auto }
 td, th { padding: .3rem .8rem; border-bottom: 1px solid #ddd; text-align: left }
 img { max-width: 100% }
 .verdict { font-size: 1.15rem; padding: .8rem 1rem; border-left: 5px solid {{ colour }} }
</style>
<h1>{{ selection.run }}</h1>
<p class="verdict">{{ evaluation.verdict.sentence }}</p>
<h2>What was measured</h2>
{% for metric, rows in tables.items() %}
<h3>{{ metric }}</h3>
<table><tr>{% for cell in header %}<th>{{ cell }}</th>{% endfor %}</tr>
{% for row in rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table>
{% endfor %}
<p>Brackets are 95 % intervals over the test items; gains are paired, item by item, positive when the merge is
better; p is that of the exact test of no gain, where there is one.</p>
{% for picture in pictures %}<p><img alt="" src="data:image/png;base64,{{ picture | safe }}"></p>
{% endfor %}
<h2>What was merged</h2>
<p>{{ merge.method }}, {{ selection.rule }}: {% for c in selection.chosen %}{{ c.name }} {% endfor %}</p>
{% for sentence in selection.planned %}<p>{{ sentence }}</p>{% endfor %}
{% if merge.notes %}<ul>{% for note in merge.notes %}<li>{{ note }}</li>{% endfor %}</ul>{% endif %}
{% if selection.left_out %}<details><summary>Left out</summary><ul>
{% for left in selection.left_out %}<li>{{ left.name }}: {{ left.reason }}</li>
{% endfor %}</ul></details>{% endif %}
{% if lore %}<h2>What LoRE found</h2>
<ul>{% for sentence in lore.sentences %}<li>{{ sentence }}</li>
{% endfor %}</ul>
{% if lore.picture %}<p><img alt="" src="data:image/png;base64,{{ lore.picture | safe }}"></p>
<p>Left: how the checkpoints differ from their common base θ₀ in the matrix where the result lies farthest
from averaging. LoRE lowers every singular value by the threshold μ: what remains is the low-rank task vector
δᵢ, what lies below μ is taken for noise. Right: how many singular values remain, in every matrix.</p>
<table><tr>{% for cell in lore.header %}<th>{{ cell }}</th>{% endfor %}</tr>
{% for row in lore.rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table>
<p>{{ lore.legend }}</p>{% endif %}{% endif %}
{% if deviation %}<h2>How the checkpoints lie to each other</h2>
<p>{% if merge.parameters.base %}Task vectors are differences from the base; in sign conflict is what one
checkpoint raises and another lowers.{% else %}Task vectors are differences from the checkpoints' mean:
they add up to zero, so cosines are below zero on average.{% endif %}</p>
<p><img alt="" src="data:image/png;base64,{{ deviation | safe }}"></p>{% endif %}
</html>
"""


def html_report(
    selection: Selection,
    merge: MergeReport,
    evaluation: Evaluation,
    figures: Sequence[Path],
    deviation: Path | None,
    lore: Path | None,
) -> str:
    """Render verdict, table, figures and provenance; everything from the run is escaped.

    `deviation` is the picture of the checkpoints' deviations; None where factors were merged, not weights.
    `lore` is that of what LoRE found; None where it decomposed nothing.
    """
    import jinja2

    return (
        jinja2.Environment(autoescape=True, finalize=shown_in_html)
        .from_string(TEMPLATE)
        .render(
            selection=selection,
            merge=merge,
            evaluation=evaluation,
            tables=evaluation_tables(evaluation),
            header=EVALUATION_HEADER,
            pictures=[_embedded(path) for path in figures],
            deviation=deviation and _embedded(deviation),
            lore=_lore(merge, lore),
            colour=VERDICT_COLOURS[evaluation.verdict.decision],
        )
    )


def _lore(merge: MergeReport, picture: Path | None) -> dict[str, Any] | None:
    """Return what the section on LoRE says; None for other methods."""
    summary = summarise(merge)
    if summary is None:
        return None
    return {
        "sentences": summary.sentences,
        "picture": picture and _embedded(picture),
        "header": LORE_HEADER,
        "rows": lore_rows(merge.tensors),
        "legend": LORE_LEGEND,
    }


def shown_in_html(value: Any) -> Any:
    """Return a value as a page shows it: no text from a run reorders or ends what is around it."""
    return plain_lines(value) if type(value) is str else value


def _embedded(picture: Path) -> str:
    return base64.b64encode(picture.read_bytes()).decode()
