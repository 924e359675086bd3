"""What merge.json says of a matrix that LoRE merged, in float64 and by definition."""

import numpy as np

from tasks.base.measures import Averaged, LoreMeasures, TensorMeasures
from tests.support.lore_reference import solve

Array = np.ndarray
AVERAGED = Averaged(identical=False)
ROWS, COLUMNS = 24, 16
EDGE = float(np.sqrt(ROWS) + np.sqrt(COLUMNS))
"""Where the singular values of noise of variance 1 end."""


def noise(seed: int, count: int = 3) -> list[Array]:
    """Return matrices that differ by noise alone, whose edge is `EDGE` but for its (1 − 1/N)."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((ROWS, COLUMNS)) for _ in range(count)]


def spiked(seed: int, height: float = 6.0, count: int = 3) -> list[Array]:
    """Return matrices that differ by a task vector of rank 2 each, so many edges high, over noise."""
    rng = np.random.default_rng(seed + 1000)
    found = []
    for matrix in noise(seed, count):
        U, _ = np.linalg.qr(rng.standard_normal((ROWS, 2)))
        V, _ = np.linalg.qr(rng.standard_normal((COLUMNS, 2)))
        found.append(matrix + height * EDGE * U @ V.T)
    return found


def measures(
    thetas: list[Array], mu: float, lam: float = 1.0, rank: int | None = None, **given: object
) -> LoreMeasures:
    """Describe LoRE on matrices, μ as a singular value; `given` replaces what a test wants otherwise."""
    N, mean = len(thetas), np.mean(thetas, axis=0)
    theta_0, _ = solve(thetas, mu)
    spectra = [np.linalg.svd(theta - theta_0, compute_uv=False) for theta in thetas]
    deltas = task_vectors(thetas, theta_0, mu, rank)
    kept = [np.linalg.svd(delta, compute_uv=False) for delta in deltas]
    total = np.sum(deltas, axis=0)
    distances = [np.linalg.norm(theta - mean) for theta in thetas]
    energy = sum(np.sum(sigma**2) for sigma in spectra)
    lengths = [np.linalg.norm(delta) for delta in deltas]
    found = {
        "shape": mean.shape, "mu": 1.0, "threshold": mu, "edge": EDGE * np.sqrt(1 - 1 / N), "passes": 9, "gap": 1e-7, "solver": "dense",
        "ranks": [int(np.sum(sigma > 1e-9)) for sigma in kept],
        "active": [int(np.sum(sigma > mu)) for sigma in spectra],
        "effective_ranks": [effective_rank(sigma) for sigma in kept],
        "share": float(np.linalg.norm(total) / sum(lengths)) if sum(lengths) else 0.0,
        "explained": float(np.sum(np.square(lengths)) / energy),
        "from_mean": float(abs(lam - 1 / N) * np.linalg.norm(total) / np.mean(distances)),
        "spectra": [[float(f"{value:.4g}") for value in sigma[:64]] for sigma in spectra],
    }  # fmt: skip
    return LoreMeasures.model_validate(found | given)


def changed(matrix: LoreMeasures, **given: object) -> LoreMeasures:
    """Return what is known of a matrix, with some of it replaced."""
    return LoreMeasures.model_validate(matrix.model_dump() | given)


def tensors(found: dict[str, LoreMeasures | Averaged]) -> dict[str, TensorMeasures]:
    """Return what LoRE found as merge.json holds it."""
    return {name: TensorMeasures(method=own) for name, own in found.items()}


def task_vectors(thetas: list[Array], theta_0: Array, mu: float, rank: int | None = None) -> list[Array]:
    """Return δ_i = SVT(θ_i − θ_0; μ), cut to a rank."""
    found = []
    for theta in thetas:
        U, sigma, Vt = np.linalg.svd(theta - theta_0, full_matrices=False)
        shrunk = np.maximum(sigma - mu, 0)
        shrunk[len(sigma) if rank is None else rank :] = 0
        found.append((U * shrunk) @ Vt)
    return found


def effective_rank(sigma: Array) -> float:
    """Return the exponential of the entropy of σ/Σσ; 0 where all are 0."""
    shares = sigma[sigma > 1e-9] / np.sum(sigma) if np.sum(sigma) > 1e-9 else np.array([])
    return float(np.exp(-np.sum(shares * np.log(shares)))) if len(shares) else 0.0
