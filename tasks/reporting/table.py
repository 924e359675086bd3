"""The table of an evaluation: every model on every metric, and the merge's gain over it."""

from tasks.base.markdown import gain_text, in_markdown, interval_text, markdown_table
from tasks.base.records.evaluation import Evaluation
from tasks.base.records.score import Difference

EVALUATION_HEADER = ["model", "score", "merge's gain", "p"]


def evaluation_tables(evaluation: Evaluation) -> dict[str, list[list[str]]]:
    """Return metric → rows of text (model, score, the merge's gain over it, p), the deciding metric first."""
    scores = {(score.model, score.metric): score for score in evaluation.scores}
    gains = {(gain.against, gain.metric): gain for gain in evaluation.differences}
    return {
        metric: [
            [
                model.label,
                interval_text(scores[model.role, metric].value),
                *_gain_texts(gains.get((model.role, metric))),
            ]
            for model in evaluation.models
        ]
        for metric in metric_order(evaluation)
    }


def metric_order(evaluation: Evaluation) -> list[str]:
    """Return the metrics, the deciding one first."""
    metrics = dict.fromkeys(score.metric for score in evaluation.scores)
    return sorted(metrics, key=lambda metric: metric != evaluation.primary)


def markdown_tables(evaluation: Evaluation) -> str:
    """Render every metric's table as Markdown."""
    tables = evaluation_tables(evaluation)
    return "\n\n".join(
        f"**{in_markdown(metric)}**\n\n"
        + markdown_table(EVALUATION_HEADER, [[in_markdown(cell) for cell in row] for row in rows])
        for metric, rows in tables.items()
    )


def _gain_texts(gain: Difference | None) -> list[str]:
    if gain is None:
        return ["", ""]
    return [gain_text(gain.gain), "" if gain.p_value is None else f"{gain.p_value:.2g}"]
