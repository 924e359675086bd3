"""What the deciding metric says of the merge against one opponent."""

import numpy as np

from tasks.base.records import GateRule
from tasks.verdict.comparison import Pairs
from tasks.verdict.intervals import LEVEL, interval

FEWEST_ITEMS, FEWEST_CLUSTERS = 100, 30
"""Fewer never promote: the intervals, and the standard errors by clusters, are theory of large numbers."""


def rule_against(pairs: Pairs, min_gain: float) -> GateRule:
    """Apply the rules to one opponent in order; the first that applies decides, `better` where none does."""
    gains, test = pairs.gains, pairs.sign_test(min_gain)
    shown = interval(pairs.estimate)
    if not gains.any():
        return "equal"
    if gains.size < FEWEST_ITEMS:
        return "too_few_items"
    if pairs.independent < FEWEST_CLUSTERS:
        return "too_few_clusters"
    if np.ptp(gains) <= 1e-9 * np.abs(gains).max():
        return "constant_gain"
    if shown.high <= min_gain:
        return "gain_ruled_out" if test is None or test.at_most < LEVEL else "may_be_chance"
    if shown.low <= min_gain:
        return "gain_open"
    return "better" if test is None or test.at_least < LEVEL else "may_be_chance"
