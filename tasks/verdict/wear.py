"""How far a set of test items is used up: every look may find a gain that is not there."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from tasks.verdict.intervals import LEVEL

CONFIRMING = 0.10
"""One-sided level at which a vault confirms what the test items found."""
BUDGET = 0.1
"""Of `alpha` spending: the chance of a false promotion in any number of looks."""
VAULT_LOOKS = 10
"""Looks after which a vault asks for fresh items."""
Spending = Literal["none", "alpha"]


class Optimism(NamedTuple):
    """By how much gains on the test items exceed those on the vault."""

    mean: float
    low: float
    """Lower end of its 95 % interval."""
    looks: int

    @property
    def is_shown(self) -> bool:
        """Whether the test items promise too much: what was chosen on them fits them alone."""
        return self.low > 0


def level_at(number: int, spending: Spending) -> float:
    """Return the one-sided level of the how many-th look, from 1.

    With `alpha` the levels add up to `BUDGET` at most, however many looks there are: 6/π² Σ1/t² = 1.
    """
    return LEVEL if spending == "none" else min(LEVEL, BUDGET * 6 / (math.pi * number) ** 2)


def chance_of_error(levels: Sequence[float]) -> float:
    """Return what the chance of at least one false promotion has grown to, at most, were nothing better."""
    return 1 - math.prod(1 - level for level in levels)


def optimism(excesses: Sequence[float]) -> Optimism | None:
    """Return the mean excess of test gains over vault gains, by Student's t; None before the second."""
    from scipy.stats import t

    n = len(excesses)
    if n < 2:
        return None
    mean = math.fsum(excesses) / n
    spread = math.sqrt(math.fsum((excess - mean) ** 2 for excess in excesses) / (n - 1))
    return Optimism(mean, mean - float(t.ppf(1 - LEVEL, n - 1)) * spread / math.sqrt(n), n)
