"""The exact test of gains that are won or lost: McNemar's, and its form for items that belong together."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class SignTest(NamedTuple):
    """How likely so many wins, or so few, are where the mean gain is exactly at the bar."""

    at_least: float
    at_most: float

    @property
    def two_sided(self) -> float:
        """Return twice the smaller of the two."""
        return min(1.0, 2 * min(self.at_least, self.at_most))


def sign_test(gains: NDArray[np.float64], clusters: Sequence[str] = (), bar: float = 0.0) -> SignTest | None:
    """Test whether a mean gain lies above `bar`; None where wins or losses have more than one size.

    Every unit (cluster, or item) is won or lost as a whole by its net wins. Its sign is drawn anew, won with
    the probability at which the mean gain is `bar`: ½ at a bar of 0, if a win counts as much as a loss. All
    outcomes are counted, by convolution. For 0/1 metrics without clusters this is McNemar's exact test; with
    clusters, the randomisation test of Fisher 1935 on the statistic of Durkalski et al. 2003. Weights play no
    part: where they turn the gain round, the test does not agree with it.
    """
    sizes = _sizes(gains)
    if sizes is None:
        return None
    nets = _net_wins(gains, clusters)
    chance = _chance_of_a_win(gains, *sizes, bar)
    outcomes = _distribution(np.abs(nets), chance)
    won = int(nets[nets > 0].sum())
    return SignTest(
        at_least=min(1.0, float(outcomes[won:].sum())), at_most=min(1.0, float(outcomes[: won + 1].sum()))
    )


def _sizes(gains: NDArray[np.float64]) -> tuple[float, float] | None:
    """Return the one size of a win and that of a loss; the same where there is only one kind; else None."""
    wins, losses = gains[gains > 0], -gains[gains < 0]
    found = [float(kind[0]) if kind.size else 0.0 for kind in (wins, losses)]
    if any(kind.size and np.ptp(kind) > 1e-9 * kind[0] for kind in (wins, losses)):
        return None
    return found[0] or found[1], found[1] or found[0]


def _net_wins(gains: NDArray[np.float64], clusters: Sequence[str]) -> NDArray[np.int64]:
    signs = np.sign(gains)
    if clusters:
        _, codes = np.unique(clusters, return_inverse=True)
        signs = np.bincount(codes, signs)
    return signs.astype(np.int64)


def _chance_of_a_win(gains: NDArray[np.float64], win: float, loss: float, bar: float) -> float:
    """Return the share of wins among what differs at which the mean gain is `bar`."""
    differing = np.count_nonzero(gains)
    if not differing:
        return 0.5
    return min(1.0, max(0.0, (bar * gains.size / differing + loss) / (win + loss)))


def _distribution(sizes: NDArray[np.int64], chance: float) -> NDArray[np.float64]:
    """Return the probability of every sum of those sizes whose sign is a win."""
    from scipy.stats import binom

    found = np.ones(1)
    for size, count in zip(*np.unique(sizes[sizes > 0], return_counts=True), strict=True):
        spaced = np.zeros(size * count + 1)
        spaced[::size] = binom.pmf(np.arange(count + 1), count, chance)
        found = np.convolve(found, spaced)
    return found
