"""How far a merge is, for whoever shows it."""

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

TELL_EVERY_S = 0.5
"""Seconds after which progress is told, even when no tensor was finished."""
SOLVING_NAMED = 3
"""Tensors being solved that a sentence names."""


class Headway(NamedTuple):
    """What is done of a merge, and what is being solved."""

    last: str
    """The tensor that was finished last in the order of the files; empty before the first."""
    done: int
    """Bytes up to that tensor."""
    total: int
    tensors: int
    """How many are done, whatever their order."""
    of: int
    """How many there are."""
    solving: Mapping[str, int]
    """The tensors that are being solved, each with the number of its pass."""
    left: str = ""
    """How long the rest takes, in words; empty where reading and writing take the time."""

    measuring: str = ""
    """The checkpoint that is being measured before the merge, in words; empty once that is done."""

    def __str__(self) -> str:
        done = f"{self.tensors} of {self.of} tensors"
        return "; ".join(filter(None, [done, self.measuring, self.left, self.solved]))

    @property
    def solved(self) -> str:
        """What is being solved, in words; empty where nothing is."""
        if not self.solving:
            return ""
        named = [
            f"{name} (pass {n})" if n else name for name, n in list(self.solving.items())[:SOLVING_NAMED]
        ]
        more = [f"{len(self.solving) - SOLVING_NAMED} more"] if len(self.solving) > SOLVING_NAMED else []
        return f"solving {', '.join([*named, *more])}"


OnProgress: TypeAlias = Callable[[Headway], None]
"""Called after each tensor, and at least every `TELL_EVERY_S` while a merge waits for the next."""


def untold(headway: Headway) -> None:
    """Tell nobody."""
