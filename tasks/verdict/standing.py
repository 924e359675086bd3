"""What the deciding metric says of the merge against one opponent."""

import numpy as np

from tasks.base.records.verdict import Decision, GateRule
from tasks.verdict.comparison import Pairs
from tasks.verdict.intervals import FEWEST_CLUSTERS, FEWEST_ITEMS, LEVEL, interval

DECISIONS: dict[GateRule, Decision] = {
    "equal": "KEEP",
    "gain_ruled_out": "KEEP",
    "too_few_items": "INCONCLUSIVE",
    "too_few_clusters": "INCONCLUSIVE",
    "constant_gain": "INCONCLUSIVE",
    "gain_open": "INCONCLUSIVE",
    "may_be_chance": "INCONCLUSIVE",
    "spent": "INCONCLUSIVE",
    "others_worsen": "KEEP",
    "guard_open": "INCONCLUSIVE",
    "harm_open": "INCONCLUSIVE",
    "better": "PROMOTE",
    "not_confirmed": "INCONCLUSIVE",
    "harm_on_vault": "KEEP",
    "not_chosen": "KEEP",
}


def rule_against(pairs: Pairs, min_gain: float, level: float = LEVEL) -> GateRule:
    """Apply the rules to one opponent in order; the first that applies decides, `better` where none does.

    A gain has to be shown at `level`, one-sided; what is ruled out is so at 2.5 %.
    """
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
    if test and test.at_least >= LEVEL:
        return "may_be_chance"
    return "better" if _is_shown(pairs, min_gain, level) else "spent"


def _is_shown(pairs: Pairs, min_gain: float, level: float) -> bool:
    test = pairs.sign_test(min_gain)
    return interval(pairs.estimate, level).low > min_gain and (test is None or test.at_least < level)
