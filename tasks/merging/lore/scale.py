"""The scale on which a threshold means something: singular values of the deviations, or their noise."""

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from tasks.merging.lore.penalty import Kind, Penalty

Values = np.ndarray[tuple[int], np.dtype[np.float64]]
Unit = Literal["absolute", "sigma1", "noise_edge"]

COLLAPSED = 3e-4
"""An edge below this share of σ_1 is rounding rather than noise, and would take thousands of passes."""


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
