"""Records of a search: the merges that it tried."""

from typing import Any

from pydantic import Field

from tasks.base.records.record import Record, absent


class TriedMerge(Record):
    """A merge that a search tried."""

    candidate: str
    mean: float
    """Of the metric; its direction is the report's."""
    gain: float
    """Over what the merge section says, item by item; positive: better."""
    error: float
    """Standard error of the gain."""
    items: int | None = Field(default=None, exclude_if=absent)
    """How many items it was asked; fewer than others where it lost on those that are asked first."""


class SearchReport(Record):
    """What a search of the merge tried on the select items, and what is to be merged."""

    made_for: str
    """Identity of the selection's checkpoints and of the merge section."""
    merge: dict[str, Any] = Field(default_factory=dict)
    """The merge section that was found; empty where nothing was searched."""
    newest: int = 0
    """How many of the selection's checkpoints are merged, the newest ones."""
    metric: str = ""
    """task/metric"""
    higher_is_better: bool = False
    items: int = 0
    sampler: str = ""
    tried: tuple[TriedMerge, ...] = ()
    """In their order, what the merge section says first."""
    accepted: bool = False
    """Whether the best one beats what the merge section says by more than a standard error."""
    sentence: str = ""
