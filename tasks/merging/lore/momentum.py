"""FISTA's momentum, restarted whenever it points uphill (O'Donoghue and Candès 2015)."""

import math


class Momentum:
    """How far to go beyond the last step."""

    def __init__(self) -> None:
        self._t = 1.0

    def after(self, uphill: bool) -> float:
        """Return the share of the last move to add to the next; 0 after a restart."""
        if uphill:
            self._t = 1.0
        following = (1 + math.sqrt(1 + 4 * self._t**2)) / 2
        share = (self._t - 1) / following
        self._t = following
        return share
