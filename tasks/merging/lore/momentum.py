"""FISTA's momentum, restarted where the step points against the last move (O'Donoghue and Candès 2015)."""

import math


class Momentum:
    """The sequence t_k, from which the momentum coefficients (t_k − 1)/t_{k+1} follow."""

    def __init__(self) -> None:
        self._t = 1.0

    def after(self, uphill: bool) -> float:
        """Return the coefficient of the last move; 0 at the start and after a restart."""
        if uphill:
            self._t = 1.0  # makes this share zero: a plain gradient step
        following = (1 + math.sqrt(1 + 4 * self._t**2)) / 2
        share = (self._t - 1) / following
        self._t = following
        return share
