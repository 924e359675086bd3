"""LoRE written down independently: float64, full SVDs, no shared code; a minimum proven by its own duality gap."""

from typing import NamedTuple

import numpy as np

Array = np.ndarray


class Minimum(NamedTuple):
    """The task vectors of B_i = θ_i − mean, and bounds of the objective's minimum."""

    z: Array
    """θ_0 − mean, refreshed from the task vectors."""
    deltas: Array
    """N × m × n"""
    primal: float
    dual: float
    passes: int

    @property
    def gap(self) -> float:
        return (self.primal - self.dual) / self.primal if self.primal else 0.0


def threshold(sigma: Array, mu: float, kind: str) -> float:
    """Return t; squared: the root of t = μ Σ max(σ_j − t, 0), by bisection."""
    if kind == "nuclear":
        return mu
    low, high = 0.0, float(sigma[0])
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if middle < mu * np.maximum(sigma - middle, 0).sum() else (low, middle)
    return high


def price(nuclear: float, mu: float, kind: str) -> float:
    return mu * nuclear if kind == "nuclear" else 0.5 * mu * nuclear**2


def prox(A: Array, mu: float, kind: str = "nuclear", rank: int | None = None) -> Array:
    U, s, Vt = np.linalg.svd(A, full_matrices=False)
    s = np.maximum(s - threshold(s, mu, kind), 0)
    if rank is not None:
        s[rank:] = 0
    return (U * s) @ Vt


def svt(A: Array, mu: float, rank: int | None = None) -> Array:
    return prox(A, mu, "nuclear", rank)


def primal(B: Array, deltas: Array, mu: float, kind: str = "nuclear") -> float:
    """Return the objective at any task vectors, with the best θ_0 for them."""
    residuals = B - deltas - np.mean(B - deltas, axis=0)
    prices = [price(np.linalg.svd(delta, compute_uv=False).sum(), mu, kind) for delta in deltas]
    return float(0.5 * np.sum(residuals**2) + sum(prices))


def dual(B: Array, deltas: Array, mu: float, kind: str = "nuclear") -> float:
    """Return a lower bound of the objective, from the residuals of any task vectors, made feasible."""
    Y = B - deltas - np.mean(B - deltas, axis=0)
    sizes = np.linalg.svd(Y, compute_uv=False)[:, 0]
    if kind == "nuclear":
        Y = Y * min(1.0, mu / max(sizes.max(), 1e-300))
        paid = 0.0
    else:
        paid = float(np.sum(sizes**2)) / (2 * mu)
    return float(np.sum(Y * B) - 0.5 * np.sum(Y**2) - paid)


def minimise(
    B: Array,
    mu: float,
    kind: str = "nuclear",
    gap: float = 1e-10,
    start: Array | None = None,
    limit: int = 20_000,
) -> Minimum:
    """Minimise Σ ½‖z + δ_i − B_i‖² + price(δ_i) by accelerated gradient steps on z until the gap is proven."""
    z = before = np.zeros(B.shape[1:]) if start is None else start
    t, high = 1.0, float(np.linalg.norm(B, 2, axis=(1, 2)).max())
    for passes in range(1, limit + 1):
        high *= 0.8  # μ comes down from σ_1, since z moves by at most μ in a pass
        now = max(mu, high) if kind == "nuclear" else mu
        deltas = np.stack([prox(b - z, now, kind) for b in B])
        moved = np.mean(B - deltas, axis=0)
        if passes % 5 == 0 and now == mu:
            found = Minimum(moved, deltas, primal(B, deltas, mu, kind), dual(B, deltas, mu, kind), passes)
            if found.gap <= gap:
                return found
        if np.sum((z - moved) * (moved - before)) > 0:
            t = 1.0
        following = (1 + np.sqrt(1 + 4 * t**2)) / 2
        z, before, t = moved + (t - 1) / following * (moved - before), moved, following
    raise AssertionError(f"the reference is still at a gap of {found.gap:.1e} after {limit} passes")


def solve(thetas: list[Array], mu: float, rank: int | None = None, gap: float = 1e-13) -> tuple[Array, Array]:
    """Return θ_0 and S at the minimum, the task vectors cut to a rank in the end and θ_0 refreshed."""
    mean = np.mean(thetas, axis=0)
    B = np.stack(thetas) - mean
    if len(B) == 2 or not B.any():  # S = 0, whatever μ
        return mean, np.zeros_like(mean)
    found = minimise(B, mu, gap=gap)
    deltas = [svt(b - found.z, mu, rank) for b in B]
    return mean - np.mean(deltas, axis=0), np.sum(deltas, axis=0)


def algorithm_1(B: Array, mu: float, passes: int) -> Array:
    """Return the δ_i of so many passes of Algorithm 1 as printed, from δ = 0."""
    deltas = np.zeros_like(B)
    for _ in range(passes):
        theta_0 = np.mean(B - deltas, axis=0)
        deltas = np.stack([svt(b - theta_0, mu) for b in B])
    return deltas


def noise_edge(B: Array) -> float:
    """Return s(√m + √n), s² the mean square of what is left of the B_i below the edge (docs/mathematics.md, fact 7).

    The s of B_i = θ_i − mean carries the factor √(1 − 1/N) already.
    """
    m, n = B.shape[1:]
    spectra = np.linalg.svd(B, compute_uv=False)
    edge, before, above = np.inf, -1.0, np.zeros(spectra.shape, bool)
    while edge != before:
        above |= spectra > edge  # never fewer: an edge made of rounding may go up and down for ever
        elements = sum((m - k) * (n - k) for k in above.sum(axis=1))
        before, edge = (
            edge,
            np.sqrt(np.sum(spectra[~above] ** 2) / max(elements, 1)) * (np.sqrt(m) + np.sqrt(n)),
        )
    return float(edge)


def deviations(thetas: list[Array] | Array) -> Array:
    """Return B_i = θ_i − mean."""
    found = np.asarray(thetas, np.float64)
    return found - found.mean(axis=0)
