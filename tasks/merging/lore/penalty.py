"""The penalty on task vectors, and the unit in which its μ is given.

nuclear: μ‖δ‖_*, whose update the paper prints. squared: ½μ‖δ‖_*², as the paper writes its objective
(docs/mathematics.md, fact 1). Units: fact 7.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

Values = np.ndarray[tuple[int], np.dtype[np.float64]]
Unit = Literal["auto", "absolute", "sigma1", "noise_edge", "rank"]
Kind = Literal["nuclear", "squared"]

COLLAPSED = 3e-4
"""An edge below this share of σ_1 is rounding rather than noise, and would take thousands of passes."""
LEADING = 0.05
"""auto: the share of the singular values that are taken for signal, at most."""
DECAY = 0.7
"""Factor by which μ comes down from σ_1 in each pass, until it has the value asked for."""


@dataclass(frozen=True)
class Penalty:
    """A function of the nuclear norm; its proximal map subtracts a threshold from every singular value."""

    kind: Kind
    mu: float
    """For nuclear in the unit of singular values; for squared without a unit."""

    def threshold(self, sigma: Values) -> float:
        """Return the threshold that the proximal map subtracts, given the singular values, descending.

        Squared: t = μ Σ_{j≤r} σ_j / (1 + μr), r the largest index with σ_r > t (docs/mathematics.md, fact 1).
        The values below t do not matter, so the leading ones suffice.
        """
        if self.kind == "nuclear" or not sigma.size:
            return self.mu if self.kind == "nuclear" else 0.0
        # t for every possible number r of active values; the right one is the largest that is consistent
        r = np.arange(1, sigma.size + 1)
        candidates = self.mu * np.cumsum(sigma) / (1 + self.mu * r)
        above = np.flatnonzero(sigma > candidates)
        return float(candidates[above[-1]]) if above.size else 0.0

    def value(self, nuclear: float) -> float:
        """Return the penalty of a matrix with this nuclear norm."""
        return self.mu * nuclear if self.kind == "nuclear" else 0.5 * self.mu * nuclear**2

    def coming_down(self, largest: float, passes: int) -> "Penalty":
        """Return the penalty for an early pass: μ = σ_1 · DECAY^passes until it is below the μ asked for.

        A step is the mean of Clip_μ, so z moves by at most μ in a pass: with a small μ from the start it
        would take many passes to get anywhere (docs/mathematics.md, fact 6).
        """
        if self.kind == "squared":
            return self  # its threshold follows the singular values by itself
        return Penalty(self.kind, max(self.mu, largest * DECAY**passes))


class Deviations(NamedTuple):
    """Spectra and energy of the deviations B_i = θ_i − mean(θ)."""

    spectra: Sequence[Values]
    """Singular values of each, descending: all of them, or at least those above the noise."""
    energy: float
    """Σ‖B_i‖²"""

    @property
    def largest(self) -> float:
        """Return σ_1."""
        return max((float(sigma[0]) for sigma in self.spectra if sigma.size), default=0.0)

    def after(self, count: int) -> float:
        """Return the largest that so many of its own matrix exceed; 0 where there are no more."""
        return max((float(sigma[count]) for sigma in self.spectra if count < sigma.size), default=0.0)


class Scale(NamedTuple):
    """μ in the unit that the user chose."""

    mu: float
    unit: Unit
    kind: Kind
    shape: tuple[int, int]
    """Of the stored matrices. The noise edge depends on it, even where a smaller equivalent is solved."""

    def penalty(self, found: Deviations) -> tuple[Penalty, float]:
        """Return the penalty with μ converted to the unit of singular values, and the noise edge."""
        edge = noise_edge(found, self.shape)
        if self.unit == "rank":
            return Penalty(self.kind, max(found.after(self.most or 0), COLLAPSED * found.largest)), edge
        beyond = found.after(self.most) if self.most else 0.0
        units = {"absolute": 1.0, "sigma1": found.largest, "noise_edge": edge, "auto": max(edge, beyond)}
        return Penalty(self.kind, self.mu * units[self.unit]), edge

    @property
    def most(self) -> int | None:
        """How many singular values of a deviation may exceed μ; None where that has no limit."""
        share = {"auto": LEADING, "rank": self.mu}.get(self.unit)
        return None if share is None else math.ceil(share * min(self.shape))


def noise_edge(found: Deviations, shape: tuple[int, int]) -> float:
    """Return the largest singular value that pure noise would have (docs/mathematics.md, fact 7).

    s(√m + √n), with s² the mean square of the elements once the spikes, the singular values above the edge,
    are taken out. Edge and spikes define each other and are found by repetition. Measured on the B_i, s has
    the factor √(1 − 1/N) in it, by which subtracting the mean shrinks the noise. Where everything is a spike
    (adapters, exactly of low rank) nothing is taken out: the edge is that of the whole energy.
    """
    m, n = shape
    counts: list[int] = []
    edge = math.inf
    while counts != (spikes := _spikes(found, edge, counts)):
        counts = spikes
        taken = sum(float(np.square(sigma[:k]).sum()) for sigma, k in zip(found.spectra, counts, strict=True))
        # k spikes take k dimensions from the rows and from the columns
        elements = sum((m - k) * (n - k) for k in counts)
        edge = _edge(max(found.energy - taken, 0.0), elements, m, n)
    if edge > COLLAPSED * found.largest:
        return edge
    # Everything was a spike, and what was left of the energy is rounding.
    return _edge(found.energy, len(found.spectra) * m * n, m, n)


def _spikes(found: Deviations, edge: float, before: list[int]) -> list[int]:
    """Count the spikes of each matrix, never fewer than `before`.

    Counts that only grow end the repetition: rounding could otherwise make the edge alternate for ever.
    """
    counts = [int((sigma > edge).sum()) for sigma in found.spectra]
    return [max(pair) for pair in zip(counts, before or counts, strict=True)]


def _edge(energy: float, elements: int, m: int, n: int) -> float:
    return math.sqrt(energy / elements) * (math.sqrt(m) + math.sqrt(n)) if elements else 0.0


def values(sigma: Any) -> Any:
    """Return singular values as float64 numpy, `Values` or several of them."""
    return sigma.detach().double().cpu().numpy()
