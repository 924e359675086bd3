"""Deviations B_i = θ_i − mean with the spectra that trajectories have, and with those that break solvers."""

from collections.abc import Callable

import numpy as np
import torch

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


def falling(rng: np.random.Generator, N: int, m: int, n: int) -> list[Array]:
    return [with_spectrum(rng, m, n, rng.uniform(0.5, 2) * 0.7 ** np.arange(min(m, n))) for _ in range(N)]


def powers(rng: np.random.Generator, N: int, m: int, n: int) -> list[Array]:
    ranks = np.arange(1.0, min(m, n) + 1)
    return [with_spectrum(rng, m, n, ranks ** -rng.uniform(0.3, 1.5)) for _ in range(N)]


def plateau(rng: np.random.Generator, N: int, m: int, n: int) -> list[Array]:
    half = np.arange(min(m, n)) < min(m, n) // 2
    return [with_spectrum(rng, m, n, np.where(half, 1.0, 0.3)) for _ in range(N)]


def cluster(rng: np.random.Generator, N: int, m: int, n: int) -> list[Array]:
    """Singular values at 1, just above and just below."""
    k = min(m, n)
    shifts = [0, 1e-6, -1e-6, 1e-3, -1e-3, 0.03, -0.03]
    return [with_spectrum(rng, m, n, np.append(3.0, 1 + rng.choice(shifts, k))[:k]) for _ in range(N)]


def deficient(rng: np.random.Generator, N: int, m: int, n: int) -> list[Array]:
    return [low_rank(rng, m, n) for _ in range(N)]


def bfloat16(rng: np.random.Generator, N: int, m: int, n: int) -> list[Array]:
    """Weights that differ by a spike and noise of a few last places."""
    base = rng.standard_normal((m, n))
    spike = with_spectrum(rng, m, n, np.eye(1, min(m, n))[0])
    found = [base + 0.02 * rng.standard_normal((m, n)) + i * 0.1 * spike for i in range(N)]
    return [torch.from_numpy(one).bfloat16().double().numpy() for one in found]


def strong(rng: np.random.Generator, N: int, m: int, n: int) -> list[Array]:
    """Spikes up to ten thousand edges of the noise high."""
    heights = 10 ** rng.uniform(1, 4, N)
    spikes = [with_spectrum(rng, m, n, height * np.eye(1, min(m, n))[0]) for height in heights]
    return [spike + rng.standard_normal((m, n)) / edge(m, n) for spike in spikes]


def drift(rng: np.random.Generator, N: int, m: int, n: int) -> list[Array]:
    """t_i · D and noise: with an even number of them the fit is nearly flat along D."""
    D = with_spectrum(rng, m, n, np.append([3.0, 2.0], np.zeros(min(m, n)))[: min(m, n)])
    return [2 * t * D + 0.2 * rng.standard_normal((m, n)) / edge(m, n) for t in np.linspace(-1, 1, N)]


def twins(rng: np.random.Generator, N: int, m: int, n: int) -> list[Array]:
    """Two that are identical, among others."""
    found = [spikes(rng, m, n, 1) for _ in range(N - 1)]
    return [*found, found[0].copy()]


TRAJECTORIES = {
    "falling": falling,
    "power law": powers,
    "plateau": plateau,
    "cluster": cluster,
    "deficient": deficient,
    "bfloat16": bfloat16,
    "strong": strong,
    "drift": drift,
    "twins": twins,
}


def trajectory(kind: str, N: int, m: int, n: int, seed: int) -> Array:
    """Return N × m × n deviations, float64, of matrices that are drawn together."""
    return deviations(TRAJECTORIES[kind](np.random.default_rng(seed), N, m, n))
