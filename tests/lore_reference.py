"""An independent LoRE: full float64 SVDs, block coordinate descent until nothing moves, no shared code."""

import numpy as np

Array = np.ndarray


def svt(A: Array, mu: float, rank: int | None = None) -> Array:
    U, s, Vt = np.linalg.svd(A, full_matrices=False)
    s = np.maximum(s - mu, 0)
    if rank is not None:
        s[rank:] = 0
    return (U * s) @ Vt


def solve(
    thetas: list[Array], mu: float, passes: int = 100_000, rank: int | None = None
) -> tuple[Array, Array]:
    """Return θ_0 and S at the fixed point of Algorithm 1."""
    theta_0 = np.mean(thetas, axis=0)
    for _ in range(passes):
        deltas = [svt(theta - theta_0, mu) for theta in thetas]
        moved = np.mean([theta - delta for theta, delta in zip(thetas, deltas, strict=True)], axis=0)
        if np.linalg.norm(moved - theta_0) <= 1e-12 * np.linalg.norm(theta_0):
            break
        theta_0 = moved
    deltas = [svt(theta - theta_0, mu, rank) for theta in thetas]
    return np.mean([t - d for t, d in zip(thetas, deltas, strict=True)], axis=0), np.sum(deltas, axis=0)


def objective(thetas: list[Array], theta_0: Array, mu: float) -> float:
    """Return the objective at θ_0 with the best δ_i for it: Σ ½‖Clip‖² + μ‖SVT‖_*."""
    total = 0.0
    for theta in thetas:
        s = np.linalg.svd(theta - theta_0, compute_uv=False)
        total += 0.5 * np.sum(np.minimum(s, mu) ** 2) + mu * np.sum(np.maximum(s - mu, 0))
    return total
