"""The price of a task vector, and the scale of its threshold μ.

The price is μ‖δ‖_* (whose update the paper prints) or ½μ‖δ‖_*² (which it writes). A threshold means something
beside the singular values of the deviations, or beside their noise.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

Values = np.ndarray[tuple[int], np.dtype[np.float64]]
Unit = Literal["absolute", "sigma1", "noise_edge"]

COLLAPSED = 3e-4
"""An edge below this share of σ_1 is rounding rather than noise, and would take thousands of passes."""
Kind = Literal["nuclear", "squared"]


DECAY = 0.7
"""Of μ from pass to pass, until it is there."""


@dataclass(frozen=True)
class Penalty:
    """A function of the nuclear norm, whose proximal map takes a threshold off every singular value."""

    kind: Kind
    mu: float
    """A singular value for nuclear; without a unit for squared."""

    def threshold(self, sigma: Values) -> float:
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


class Deviations(NamedTuple):
    """What is known of B_i = θ_i − mean(θ)."""

    spectra: Sequence[Values]
    """Singular values of each, descending: all of them, or at least those above the noise."""
    energy: float
    """Σ‖B_i‖²"""

    @property
    def largest(self) -> float:
        """Return σ_1."""
        return max((float(sigma[0]) for sigma in self.spectra if sigma.size), default=0.0)


class Scale(NamedTuple):
    """μ as a user gives it."""

    mu: float
    unit: Unit
    kind: Kind
    shape: tuple[int, int]
    """Of the matrices as they are stored: noise has its energy there, however they are solved."""

    def penalty(self, found: Deviations) -> tuple[Penalty, float]:
        """Return the penalty with μ as a singular value, and the noise edge."""
        edge = noise_edge(found, self.shape)
        units = {"absolute": 1.0, "sigma1": found.largest, "noise_edge": edge}
        return Penalty(self.kind, self.mu * units[self.unit]), edge


def noise_edge(found: Deviations, shape: tuple[int, int]) -> float:
    """Return where the singular values of pure noise would end.

    s(√m + √n), with s² the mean square of the elements once the spikes beyond the edge are taken out, found
    by repetition, because edge and spikes define each other. Measured on the B_i, s already carries the
    factor √(1 − 1/N) by which the mean's own noise shrinks them. Where all is spikes (low-rank adapters,
    computed exactly) nothing is taken out: the edge is that of the whole energy.
    """
    m, n = shape
    counts: list[int] = []
    edge = math.inf
    while counts != (spikes := _spikes(found, edge, counts)):
        counts = spikes
        taken = sum(float(np.square(sigma[:k]).sum()) for sigma, k in zip(found.spectra, counts, strict=True))
        elements = sum((m - k) * (n - k) for k in counts)
        edge = _edge(max(found.energy - taken, 0.0), elements, m, n)
    if edge > COLLAPSED * found.largest:
        return edge
    return _edge(found.energy, len(found.spectra) * m * n, m, n)


def _spikes(found: Deviations, edge: float, before: list[int]) -> list[int]:
    """Count the spikes; never fewer than before: an edge made of rounding would go up and down for ever."""
    counts = [int((sigma > edge).sum()) for sigma in found.spectra]
    return [max(pair) for pair in zip(counts, before or counts, strict=True)]


def _edge(energy: float, elements: int, m: int, n: int) -> float:
    return math.sqrt(energy / elements) * (math.sqrt(m) + math.sqrt(n)) if elements else 0.0


def values(sigma: Any) -> Values:
    """Return singular values as float64 numpy."""
    found: Values = sigma.detach().double().cpu().numpy()
    return found
