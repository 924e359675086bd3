"""The table of an evaluation: every model on every metric, and what the merge gains over it."""

from collections.abc import Sequence

from tasks.records import Difference, Evaluation, Interval


def evaluation_table(evaluation: Evaluation) -> list[list[str]]:
    """Return rows of text, the header first: model, each metric, the merge's gain on each metric."""
    metrics = metric_order(evaluation)
    scores = {(score.model, score.metric): score for score in evaluation.scores}
    gains = {(gain.against, gain.metric): gain for gain in evaluation.differences}
    header = ["model", *metrics, *(f"merge's gain in {metric}" for metric in metrics)]
    rows = [
        [
            model.label,
            *(interval_text(scores[model.role, metric].value) for metric in metrics),
            *(_gain_text(gains.get((model.role, metric))) for metric in metrics),
        ]
        for model in evaluation.models
    ]
    return [header, *rows]


def metric_order(evaluation: Evaluation) -> list[str]:
    """Return the metrics, the deciding one first."""
    metrics = dict.fromkeys(score.metric for score in evaluation.scores)
    return sorted(metrics, key=lambda metric: metric != evaluation.primary)


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Render rows, the header first, as a Markdown table."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|" + " --- |" * len(rows[0]))
    return "\n".join(lines)


def interval_text(interval: Interval) -> str:
    """Write an estimate with its interval."""
    return f"{interval.mean:.4g} [{interval.low:.4g}, {interval.high:.4g}]"


def _gain_text(gain: Difference | None) -> str:
    if gain is None:
        return "—"
    p = "" if gain.p_value is None else f", p = {gain.p_value:.2g}"
    return f"{gain.gain.mean:+.4g} [{gain.gain.low:+.4g}, {gain.gain.high:+.4g}]{p}"
