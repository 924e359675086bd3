"""Deviations B_i = θ_i − mean with the spectra that trajectories have, and with those that break solvers."""

from collections.abc import Callable

import numpy as np

from tests.support.lore_reference import deviations

Array = np.ndarray


def with_spectrum(rng: np.random.Generator, m: int, n: int, sigma: Array) -> Array:
    k = min(m, n)
    U = np.linalg.qr(rng.standard_normal((m, k)))[0]
    V = np.linalg.qr(rng.standard_normal((n, k)))[0]
    return (U * sigma[:k]) @ V.T


def edge(m: int, n: int) -> float:
    """Where the singular values of noise of variance 1 end."""
    return float(np.sqrt(m) + np.sqrt(n))


def spikes(rng: np.random.Generator, m: int, n: int, rank: int = 2) -> Array:
    heights = np.zeros(min(m, n))
    heights[:rank] = edge(m, n) * np.geomspace(6, 2, rank)[: min(m, n)]
    return rng.standard_normal((m, n)) + with_spectrum(rng, m, n, heights)


def power_law(rng: np.random.Generator, m: int, n: int) -> Array:
    return with_spectrum(rng, m, n, 1 / np.arange(1.0, min(m, n) + 1))


def flat(rng: np.random.Generator, m: int, n: int) -> Array:
    return with_spectrum(rng, m, n, np.ones(min(m, n)))


def low_rank(rng: np.random.Generator, m: int, n: int) -> Array:
    rank = max(1, min(m, n) // 4)
    return rng.standard_normal((m, rank)) @ rng.standard_normal((rank, n))


def rank_one(rng: np.random.Generator, m: int, n: int) -> Array:
    return np.outer(rng.standard_normal(m), rng.standard_normal(n))


def ill_conditioned(rng: np.random.Generator, m: int, n: int) -> Array:
    return with_spectrum(rng, m, n, np.geomspace(1, 1e-8, min(m, n)))


def outlier(height: float) -> Callable[[np.random.Generator, int, int], Array]:
    def one(rng: np.random.Generator, m: int, n: int) -> Array:
        matrix = rng.standard_normal((m, n))
        matrix[rng.integers(m), rng.integers(n)] += height
        return matrix

    return one


SPECTRA = {
    "spikes": spikes,
    "power law": power_law,
    "flat": flat,
    "low rank": low_rank,
    "rank one": rank_one,
    "condition 1e8": ill_conditioned,
    "outlier 1e4": outlier(1e4),
    "outlier 1e8": outlier(1e8),
}


def family(spectrum: str, N: int, m: int, n: int, seed: int) -> Array:
    """Return N × m × n deviations, float64. outlier: in the first matrix only, the others are noise."""
    rng = np.random.default_rng(seed)
    made = [SPECTRA[spectrum](rng, m, n) for _ in range(N)]
    if spectrum.startswith("outlier"):
        made[1:] = [rng.standard_normal((m, n)) for _ in made[1:]]
    return deviations(made)
