"""Records of models that were measured: their scores, and how they differ."""

from tasks.base.records.record import Interval, Record


class EvaluatedModel(Record):
    """A model that took part in an evaluation."""

    role: str
    """merge, last, best, average, champion, base: what adapters were made for, which nothing is held to,
    reference: a fixed model that other metrics are held to, or run-N: the average of one of several runs"""
    label: str
    digest: str


class Score(Record):
    """One model on one metric."""

    model: str
    """Its role."""
    metric: str
    """task/metric"""
    items: int
    value: Interval


class Difference(Record):
    """The merge minus another model, item by item, signed so that positive means the merge is better."""

    against: str
    """The other's role."""
    metric: str
    items: int
    gain: Interval
    p_value: float | None
    """Exact two-sided test that the gain is 0, where every win counts the same and so does every loss."""
    wins: int
    losses: int
