"""The page over time of a registered model: one HTML file that needs nothing else."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from tasks.base.errors import BadInput
from tasks.base.markdown import gain_text
from tasks.base.records.evaluation import Evaluation
from tasks.base.records.record import Interval
from tasks.parameters.registration import RegisterParams
from tasks.registry.evidence import recorded_evaluations
from tasks.registry.history import MergedRun
from tasks.registry.looks import Look, looks_of
from tasks.registry.store import connect, mlflow_errors
from tasks.reporting.looks_table import looks_table
from tasks.reporting.page import VERDICT_COLOURS, render_page
from tasks.reporting.svg_chart import ChartLevel, Point, Series, svg_chart
from tasks.reporting.unmerged_table import UnmergedRun, local_time

PAGE_FILE = "history.html"
GREY, RED = "#888", "#a02020"
HEADER = ("when", "verdict", "run", "version", "gain", "vault", "took", "files")
NIGHTS_PAGE = """
<h1>{{ name }}</h1>
<p class="about">{{ about }}</p>
{% for metric, charts in by_metric %}
<h2>{{ metric }}</h2>
{% for chart in charts %}{{ chart | safe }}{% endfor %}
{% endfor %}
{% if by_metric %}
<p class="about">Bars are 95 % intervals. Above: merges, and who was champion then. Below: the gain that the
verdict rests on, over the opponent that decides, and as a diamond the gain on the vault.</p>
{% endif %}
{% for title, chart in costs %}
<h2>{{ title }}</h2>
{{ chart | safe }}
{% endfor %}
<h2>Nights</h2>
<table class="nights"><tr>{% for cell in header %}<th>{{ cell }}</th>{% endfor %}</tr>
{% for row in rows %}<tr><td>{{ row.when }}</td>
<td class="edge" style="border-left-color: {{ row.colour }}">
{% if row.why %}<b>{{ row.state }}</b></td><td>{{ row.run }}</td><td colspan="5">{{ row.why }}</td>
{% else %}<details><summary>{{ row.verdict }}</summary>{{ row.sentence }}</details></td>
<td>{{ row.run }}</td><td>{{ row.version }}</td>
<td>{{ row.gain }}</td><td>{{ row.vault }}</td><td>{{ row.took }}</td><td>{{ row.size }}</td>{% endif %}</tr>
{% endfor %}</table>
<h2>Looks</h2>
<pre style="overflow-x: auto">{{ looks }}</pre>
</html>
"""


class Night(NamedTuple):
    """A merged run, its evaluation, and the look at a vault that it took, if any."""

    run: MergedRun
    evaluation: Evaluation
    vault: Look | None = None


def write_history_page(
    path: Path, params: RegisterParams, runs: Sequence[MergedRun], unmerged: Sequence[UnmergedRun] = ()
) -> None:
    """Write the page of merged runs, the newest first, and of those without a merge.

    Raises BadInput where it cannot be written, Unavailable when MLflow does not answer.
    """
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
        path.write_text(history_page(params.name, nights, unmerged, looks), encoding="utf-8")
    except OSError as error:
        raise BadInput(path, f"cannot be written ({error.strerror})", "name another file") from None


def history_page(
    name: str, nights: Sequence[Night], unmerged: Sequence[UnmergedRun], looks: Sequence[Look]
) -> str:
    """Render nights, the oldest first, runs without a merge, and looks; what runs say is escaped."""
    rows = [_row(night) for night in nights] + [_failed(run) for run in unmerged]
    return render_page(
        NIGHTS_PAGE,
        name,
        name=name,
        about=_about(nights, unmerged),
        by_metric=list(_by_metric(nights)),
        costs=list(_costs(nights)),
        header=HEADER,
        rows=sorted(rows, key=lambda row: row["seconds"], reverse=True),
        looks=looks_table(looks),
    )


def _about(nights: Sequence[Night], unmerged: Sequence[UnmergedRun]) -> str:
    """Say what the aliases point at, how the verdicts went, and what was not merged."""
    held = [
        f"{alias}: version {night.run.number} ({night.run.run})"
        for alias in ("champion", "challenger")
        for night in nights
        if alias in night.run.aliases
    ]
    decisions = [night.evaluation.verdict.decision for night in nights]
    counts = [f"{decisions.count(d)} {d}" for d in VERDICT_COLOURS if d in decisions]
    failed = [f"{len(unmerged)} without a merge"] if unmerged else []
    return " · ".join([*held, *counts, *failed])


def _by_metric(nights: Sequence[Night]) -> Iterator[tuple[str, list[str]]]:
    """Yield each deciding metric with the charts of its nights, the metric of the newest night first."""
    by_metric = sorted(nights, key=lambda night: night.evaluation.primary)  # stable: each stays in order
    groups = [list(own) for _, own in groupby(by_metric, key=lambda night: night.evaluation.primary)]
    for own in sorted(groups, key=lambda own: -own[-1].run.when):
        yield own[-1].evaluation.primary, [_scores(own), _gains(own)]


def _scores(nights: Sequence[Night]) -> str:
    primary = nights[-1].evaluation.primary
    champions = [
        Point(place, score.mean, f"{label}: {score.mean:.4g}")
        for place, night in enumerate(nights)
        if (score := _score(night, "champion"))
        for label in [next(m.label for m in night.evaluation.models if m.role == "champion")]
    ]
    merges = [
        _mark(place, night, score, f"{night.run.model} ({night.run.run})")
        for place, night in enumerate(nights)
        if (score := _score(night, "merge"))
    ]
    then = [Series(champions, GREY, "champion then", "ring", line=True)] if champions else []
    series = [*then, *_by_verdict(nights, merges)]
    return svg_chart(series, "night", primary, names=_days(nights), across=_across(nights))


def _gains(nights: Sequence[Night]) -> str:
    marks = [
        _mark(place, night, night.evaluation.decisive.gain, _over(night))
        for place, night in enumerate(nights)
    ]
    vault = [
        _mark(place + 0.15, night, night.vault.gain, "on the vault")
        for place, night in enumerate(nights)
        if night.vault and night.vault.gain
    ]
    series = [*_by_verdict(nights, marks), Series(vault, GREY, "on the vault" if vault else "", "diamond")]
    return svg_chart(
        series, "night", "gain (up is better)", [ChartLevel(0.0, "")], _days(nights), across=_across(nights)
    )


def _by_verdict(nights: Sequence[Night], marks: Sequence[Point]) -> list[Series]:
    """Part marks by the colour of their verdict, for the legend."""
    return [
        Series([mark for mark in marks if mark.colour == colour], colour, decision)
        for decision, colour in VERDICT_COLOURS.items()
        if any(night.evaluation.verdict.decision == decision for night in nights)
    ]


def _mark(place: float, night: Night, value: Interval, what: str) -> Point:
    decision = night.evaluation.verdict.decision
    told = f"{_day(night.run.when)}, {decision}: {what}, {value.mean:.4g} [{value.low:.4g}, {value.high:.4g}]"
    return Point(place, value.mean, told, VERDICT_COLOURS[decision], value.low, value.high)


def _costs(nights: Sequence[Night]) -> Iterator[tuple[str, str]]:
    """Yield what nights cost, as far as it was recorded."""
    for title, unit, values in (
        ("Duration", "minutes", [(n.run.seconds or 0) / 60 for n in nights]),
        ("Disk", "MB a version", [(n.run.bytes or 0) / 1e6 for n in nights]),
    ):
        points = [
            Point(place, value, f"{_day(night.run.when)}, {night.run.run}: {value:.3g} {unit}")
            for place, (night, value) in enumerate(zip(nights, values, strict=True))
            if value
        ]
        if points:
            series, days = [Series(points, "#1f6fb4", line=True)], _days(nights)
            yield (
                title,
                svg_chart(series, "night", unit, names=days, floor=0.0, share=0.6, across=_across(nights)),
            )


def _vault_look(evaluation: Evaluation, looks: Sequence[Look]) -> Look | None:
    """Return the look at a vault that an evaluation's merge took last."""
    merge = next(model.digest for model in evaluation.models if model.role == "merge")
    taken = [look for look in looks if look.asked.kind == "vault" and look.asked.merge == merge]
    return taken[-1] if taken else None


def _row(night: Night) -> dict[str, Any]:
    run, verdict, vault = night.run, night.evaluation.verdict, night.vault
    size = f"{run.bytes / 1e6:.4g} MB" if run.bytes else "-"
    return {
        "seconds": run.when,
        "when": local_time(run.when),
        "run": run.run or "-",
        "version": f"{run.model} ({', '.join(run.aliases)})" if run.aliases else run.model,
        "verdict": verdict.decision,
        "sentence": verdict.sentence,
        "gain": f"{gain_text(night.evaluation.decisive.gain)} {_over(night)}",
        "vault": gain_text(vault.gain) if vault and vault.gain else "-",
        "took": f"{run.seconds / 60:.3g} min" if run.seconds else "-",
        "size": f"{size}, pruned" if run.pruned else size,
        "colour": VERDICT_COLOURS[verdict.decision],
    }


def _failed(run: UnmergedRun) -> dict[str, Any]:
    return {
        "seconds": run.when,
        "when": local_time(run.when),
        "run": run.run,
        "state": run.state,
        "why": run.why,
        "colour": RED,
    }


def _over(night: Night) -> str:
    against = night.evaluation.verdict.against
    return f"over {next(model.label for model in night.evaluation.models if model.role == against)}"


def _score(night: Night, role: str) -> Interval | None:
    wanted = (role, night.evaluation.primary)
    return next((s.value for s in night.evaluation.scores if (s.model, s.metric) == wanted), None)


def _across(nights: Sequence[Night]) -> tuple[float, float]:
    """Return the range of the x axis: the same in every chart of these nights."""
    return -0.5, len(nights) - 0.5


def _days(nights: Sequence[Night]) -> list[tuple[float, str]]:
    return [(float(place), _day(night.run.when)) for place, night in enumerate(nights)]


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%m-%d")
