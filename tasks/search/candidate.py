"""A candidate for the merge: checkpoints of the selection, and settings on top of the merge section."""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from tasks.parameters.varying import Gradient, Rules

Value: TypeAlias = "str | int | float | bool | tuple[float, ...] | Rules"
WEIGHT_DIGITS = 4
"""Of a weight: no merge depends on more."""


class Candidate(NamedTuple):
    """A merge that could be made."""

    newest: int
    """How many of the selected checkpoints it merges, the newest ones."""
    settings: tuple[tuple[str, Value], ...]
    """Values by key of the merge section, such as ("ema.decay", 0.7)."""

    def __str__(self) -> str:
        told = ", ".join(f"{key} {_text(value)}" for key, value in self.settings) or "as merge says"
        return f"{told} of {self.newest}"


def plain_average(count: int) -> Candidate:
    """Return the plain average of all selected checkpoints."""
    return Candidate(count, (("method", "average"),))


def as_it_stands(count: int) -> Candidate:
    """Return what the merge section says, which every other has to beat."""
    return Candidate(count, ())


def weighted(weights: Sequence[float]) -> Candidate:
    """Return an average with these weights, oldest first; equal ones are the plain average."""
    if len(set(weights)) == 1:
        return plain_average(len(weights))
    return Candidate(len(weights), (("method", "average"), ("weights", tuple(float(w) for w in weights))))


def _text(value: "Value | Gradient") -> str:
    if isinstance(value, Rules):
        return " / ".join(_text(rule.value) for rule in value.rules)
    if isinstance(value, tuple):
        return f"[{', '.join(f'{weight:.3g}' for weight in value)}]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
