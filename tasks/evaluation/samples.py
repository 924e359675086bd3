"""Turning the samples that lm-eval logs into one value per item and metric."""

import math
from collections.abc import Sequence
from itertools import groupby
from numbers import Real
from typing import Any

from tasks.base.errors import BadInput
from tasks.base.json_digest import digest_of
from tasks.evaluation.results import TaskResult

NLL = "nll"
LIKELIHOOD_TASKS = ("loglikelihood", "loglikelihood_rolling", "multiple_choice")
Sample = dict[str, Any]


def task_result(task: Any, samples: Sequence[Sample], cluster: str | None) -> TaskResult:
    """Return the metrics that an lm-eval task reported, and the negative log-likelihood of its targets.

    `cluster`: the field of the documents that says which items belong together; None: each for itself.

    Raises BadInput when a value is not finite, or when no metric has one number per item.
    """
    filters = {name: list(group) for name, group in groupby(samples, key=lambda sample: sample["filter"])}
    first = next(iter(filters.values()))
    values: dict[str, tuple[float, ...]] = {}
    directions: dict[str, bool] = {}
    for name, logged in filters.items():
        for metric, better in _directions(task).items():
            column = _column([sample.get(metric) for sample in logged])
            if column is not None:
                full = f"{metric},{name}" if len(filters) > 1 else metric
                values[full], directions[full] = column, better
    nll = _column([_nll(task, sample) for sample in first])
    if nll is not None:
        values[NLL], directions[NLL] = nll, False
    name = str(task.config.task)
    _usable(name, values)
    return TaskResult(
        task=name,
        items=tuple(_identity(sample) for sample in first),
        values=values,
        higher_is_better=directions,
        clusters=tuple(str(sample["doc"][cluster]) for sample in first) if cluster else (),
    )


def _directions(task: Any) -> dict[str, bool]:
    """Return metric → whether higher is better, where lm-eval knows.

    lm-eval logs the log-likelihood of a loglikelihood item as "perplexity"; nll reports it by its own name.
    """
    known = {name: better for name, better in task.higher_is_better().items() if better is not None}
    if task.OUTPUT_TYPE == "loglikelihood":
        known.pop("perplexity", None)
    return known


def _column(values: Sequence[Any]) -> tuple[float, ...] | None:
    """Return one number per item, or None when a metric has none for some (such as f1 on a whole corpus)."""
    if not all(isinstance(value, Real) for value in values):
        return None
    return tuple(float(value) for value in values)


def _nll(task: Any, sample: Sample) -> float | None:
    """Return the negative log-likelihood of the target in nats; None where there is none."""
    if task.OUTPUT_TYPE not in LIKELIHOOD_TASKS:
        return None
    likelihoods = [_log_likelihood(answers[0]) for answers in sample["resps"]]
    if task.OUTPUT_TYPE != "multiple_choice":
        return -likelihoods[0]
    gold = task.doc_to_text(sample["doc"]) if getattr(task, "multiple_input", 0) else sample["target"]
    if isinstance(gold, str):
        choices = task.doc_to_choice(sample["doc"])
        gold = choices.index(gold) if gold in choices else None
    return -likelihoods[gold] if isinstance(gold, int) and 0 <= gold < len(likelihoods) else None


def _log_likelihood(answer: Any) -> float:
    """Unwrap (log-likelihood, is greedy); rolling likelihoods come bare."""
    return float(answer[0] if isinstance(answer, tuple | list) else answer)


def _identity(sample: Sample) -> str:
    """Return an item's identity from its position, document, prompt and target; 64 bits suffice."""
    return digest_of([sample[key] for key in ("doc_id", "doc_hash", "prompt_hash", "target_hash")])[:16]


def _usable(task: str, values: dict[str, tuple[float, ...]]) -> None:
    if not values:
        raise BadInput(
            "evaluate.tasks", f"{task} reports no number per item to pair models by", "leave it out"
        )
    for metric, column in values.items():
        for place, value in enumerate(column):
            if not math.isfinite(value):
                raise BadInput(
                    f"{task}/{metric}",
                    f"is {value} on item {place}",
                    "look at the model's weights, which may overflow, or leave the metric's task out",
                )
