"""The price of a task vector: μ‖δ‖_* (whose update the paper prints) or ½μ‖δ‖_*² (which it writes)."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

Kind = Literal["nuclear", "squared"]


DECAY = 0.7
"""Of μ from pass to pass, until it is there."""


@dataclass(frozen=True)
class Penalty:
    """A function of the nuclear norm, whose proximal map takes a threshold off every singular value."""

    kind: Kind
    mu: float
    """A singular value for nuclear; without a unit for squared."""

    def threshold(self, sigma: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> float:
        """Return what the proximal map takes off, given the singular values, descending.

        Squared: t = μ Σ_{j≤r} σ_j / (1 + μr), r the largest index with σ_r > t (docs/mathematics.md, fact 1).
        The values below t do not matter, so the leading ones suffice.
        """
        if self.kind == "nuclear" or not sigma.size:
            return self.mu if self.kind == "nuclear" else 0.0
        r = np.arange(1, sigma.size + 1)
        candidates = self.mu * np.cumsum(sigma) / (1 + self.mu * r)
        above = np.flatnonzero(sigma > candidates)
        return float(candidates[above[-1]]) if above.size else 0.0

    def value(self, nuclear: float) -> float:
        """Return the price of a matrix of this nuclear norm."""
        return self.mu * nuclear if self.kind == "nuclear" else 0.5 * self.mu * nuclear**2

    def coming_down(self, largest: float, passes: int) -> "Penalty":
        """Return the penalty of an early pass: μ halves from σ_1 on, since in a pass z moves by at most μ."""
        if self.kind == "squared":
            return self
        return Penalty(self.kind, max(self.mu, largest * DECAY**passes))
