"""Which gains a set of test items can find, before the first night, by Student's t (Miller 2024)."""

import math
from typing import NamedTuple

from tasks.verdict.comparison import Pairs
from tasks.verdict.intervals import POWER, estimate_mean
from tasks.verdict.wear import CONFIRMING, Spending, level_at


class Design(NamedTuple):
    """Items to compare two models on, and how their gains spread."""

    items: int
    spread: float
    """Standard deviation of an item's gain."""
    clusters: int
    """As many as items, where every item stands for itself."""
    inflation: float = 1.0
    """Variance of the mean over that of as many independent items: 1 + (m − 1)·ICC in clusters of m."""

    @property
    def error(self) -> float:
        """Standard error of the mean gain."""
        return self.spread * math.sqrt(self.inflation / self.items)

    def sized(self, items: int) -> "Design":
        """Return the same design with so many items, in clusters of the same size."""
        return self._replace(items=items, clusters=max(2, round(self.clusters * items / self.items)))


def design_of(pairs: Pairs) -> Design:
    """Return the design that two models were compared in, with the spread that was seen."""
    items = pairs.gains.size
    alone = estimate_mean(pairs.gains, (), pairs.weights).error
    together = pairs.estimate.error
    return Design(
        items,
        alone * math.sqrt(items),
        pairs.independent,
        (together / alone) ** 2 if alone else 1.0,
    )


def guessed_design(
    items: int, spread: float | None, discordant: float, cluster_size: int, correlation: float
) -> Design:
    """Return a design from guesses: `discordant` is the share of items that 0/1 answers differ on.

    `correlation` is that of gains within a cluster.
    """
    return Design(
        items,
        math.sqrt(discordant) if spread is None else spread,
        max(2, items // cluster_size),
        1 + (cluster_size - 1) * correlation,
    )


def power_of(gain: float, design: Design, level: float) -> float:
    """Return the probability that a true gain is shown: that the lower end of its interval is above 0."""
    from scipy.stats import nct, t

    df = design.clusters - 1
    return float(nct.sf(t.ppf(1 - level, df), df, gain / design.error))


def smallest_gain(design: Design, look: int, spending: Spending, vault: Design | None = None) -> float:
    """Return the smallest gain that is promoted in `POWER` of the cases at the how many-th look.

    With a vault the gain has to show there too, at its own level.
    """
    from scipy.optimize import brentq

    def short(gain: float) -> float:
        confirmed = power_of(gain, vault, CONFIRMING) if vault else 1.0
        return power_of(gain, design, level_at(look, spending)) * confirmed - POWER

    high = design.error
    while short(high) < 0:
        high *= 2
    return float(brentq(short, 0.0, high, rtol=1e-6))


def items_for(gain: float, design: Design, look: int, spending: Spending, vault: Design | None = None) -> int:
    """Return how many items would find this gain as `smallest_gain` does; a vault grows with them."""
    few, many = 0, design.items
    while _finds(design, vault, many, look, spending) > gain:
        few, many = many, 2 * many
    while many - few > max(1, many // 1000):
        middle = (few + many) // 2
        if _finds(design, vault, middle, look, spending) > gain:
            few = middle
        else:
            many = middle
    return many


def _finds(design: Design, vault: Design | None, items: int, look: int, spending: Spending) -> float:
    if items < 2:
        return math.inf
    beside = vault.sized(max(2, round(vault.items * items / design.items))) if vault else None
    return smallest_gain(design.sized(items), look, spending, beside)
