"""Evaluations of models whose value on every item a test makes up."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.base.records.evaluation import Evaluation
from tasks.base.records.score import EvaluatedModel
from tasks.base.records.verdict import Verdict
from tasks.evaluation.results import TaskResult
from tasks.parameters.evaluation import EvaluateParams
from tasks.verdict.gate import evaluate_results

Results = Mapping[str, Mapping[str, TaskResult]]

ITEMS = 300
PARAMS = EvaluateParams(tasks=("t",), primary="t/nll")
NOISE = np.random.default_rng(7).normal(0, 0.1, size=(5, ITEMS))
HARD = np.random.default_rng(8).exponential(1.0, size=ITEMS)


def result(**metrics: NDArray[Any]) -> dict[str, TaskResult]:
    """One task; nll is better when lower, everything else when higher."""
    count = len(next(iter(metrics.values())))
    return {
        "t": TaskResult(
            task="t",
            items=tuple(str(item) for item in range(count)),
            values={name.replace("__", ","): tuple(map(float, column)) for name, column in metrics.items()},
            higher_is_better={name.replace("__", ","): name != "nll" for name in metrics},
        )
    }


def nll(level: float, noise: int) -> NDArray[np.float64]:
    """Hard items and easy ones, one level for all, and some noise."""
    return HARD + level + NOISE[noise]


def verdict_of(results: Results, **chosen: Any) -> Verdict:
    return evaluation_of(results, **chosen).verdict


def evaluation_of(results: Results, **chosen: Any) -> Evaluation:
    """Judge by t/nll, unless another primary metric is chosen."""
    return evaluate_results(models_of(results), results, PARAMS.model_copy(update=chosen))


def models_of(roles: Iterable[str]) -> list[EvaluatedModel]:
    return [EvaluatedModel(role=role, label=f"the {role}", digest=role) for role in roles]
