"""The record of an evaluation: models, scores, differences and the verdict."""

from typing import Self

from pydantic import Field, model_validator

from tasks.base.records.record import Record, is_empty
from tasks.base.records.score import Difference, EvaluatedModel, Score
from tasks.base.records.verdict import Verdict


class Evaluation(Record):
    """Everything measured about a merge."""

    primary: str
    models: tuple[EvaluatedModel, ...]
    scores: tuple[Score, ...]
    differences: tuple[Difference, ...]
    verdict: Verdict
    items: dict[str, str] = Field(default_factory=dict, exclude_if=is_empty)
    """Task → digest of the items that judged; empty in records of 0.1.0."""
    higher_is_better: dict[str, bool] = Field(default_factory=dict, exclude_if=is_empty)
    """task/metric → its direction; empty in records of 0.1.0."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        """Hold what readers look up: every model on every metric, and the difference that decides."""
        roles = {model.role for model in self.models}
        metrics = {self.primary, *(score.metric for score in self.scores)}
        wanted = {(role, metric) for role in roles for metric in metrics}
        decisive = (self.verdict.against, self.verdict.primary)
        compared = {(found.against, found.metric) for found in self.differences}
        scored = {(score.model, score.metric) for score in self.scores}
        if scored != wanted or decisive not in compared or not compared <= wanted:
            raise ValueError("models, scores and differences do not match")
        return self

    @property
    def decisive(self) -> Difference:
        """The difference that the verdict rests on."""
        wanted = (self.verdict.against, self.verdict.primary)
        return next(found for found in self.differences if (found.against, found.metric) == wanted)
