"""How far an evaluation of several models is, for whoever shows it."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias


class ItemsAnswered(NamedTuple):
    """What is answered by one of the models."""

    label: str
    """Which model it is, in words."""
    model: int
    """Its number, from 1."""
    of: int
    """How many models there are."""
    done: int = 0
    """Items that it answered, those of an earlier, killed evaluation included."""
    total: int = 0
    """How many items it is asked; 0 until its tasks are read, or where all its results are kept."""

    @property
    def turn(self) -> str:
        """Which model it is, among how many."""
        return f"model {self.model} of {self.of}, {self.label}"

    def __str__(self) -> str:
        return f"{self.turn}: {self.done} of {self.total} items" if self.total else self.turn


OnAnswers: TypeAlias = Callable[[ItemsAnswered], None]
"""Called when a model's turn comes, and after each of its answers."""


def ignore_answers(answered: ItemsAnswered) -> None:
    """Show nothing."""
