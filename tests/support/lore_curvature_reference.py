"""The curvature of LoRE's fit, assembled in full, and its minimum by Newton's method on all elements: float64."""

from typing import NamedTuple

import numpy as np

from tests.support.lore_reference import Array, svt


class Exact(NamedTuple):
    """A minimiser."""

    z: Array
    curvature: float
    """The smallest eigenvalue of the Hessian there."""
    off: float
    """How far z may be from the minimiser next to it: the slope that is left over the curvature, twice."""


def slope(B: Array, z: Array, mu: float) -> Array:
    """Return ΣClip_μ(B_i − z), minus the gradient of the fit."""
    return sum(b - z - svt(b - z, mu) for b in B)


def fit(B: Array, z: Array, mu: float) -> float:
    """Return the objective with the best task vectors for z: Huber's function of all singular values."""
    sigma = np.linalg.svd(B - z, compute_uv=False)
    return float(np.sum(np.where(sigma > mu, mu * sigma - mu**2 / 2, sigma**2 / 2)))


def derivative(A: Array, mu: float) -> Array:
    """Return the derivative of A's singular value thresholding, mn × mn, for row-major matrices m × n."""
    m, n = A.shape
    U, sigma, Vt = np.linalg.svd(A)
    left, right = (np.concatenate([sigma, np.zeros(side - len(sigma))]) for side in (m, n))
    d, e = np.maximum(left - mu, 0), np.maximum(right - mu, 0)
    difference, total = left[:, None] - right, left[:, None] + right
    equal = np.abs(difference) < 1e-9 * max(mu, 1e-300)
    symmetric = np.where(
        equal, (left > mu)[:, None] & (right > mu), (d[:, None] - e) / np.where(equal, 1, difference)
    )
    rotating = (d[:, None] + e) / np.where(total > 0, total, 1)
    # X_jk and X_kj for pairs that both exist; where one does not, both coefficients agree
    core = np.zeros((m * n, m * n))
    for j in range(m):
        for k in range(n):
            core[j * n + k, j * n + k] += (symmetric[j, k] + rotating[j, k]) / 2
            if j < n and k < m:
                core[j * n + k, k * n + j] += (symmetric[j, k] - rotating[j, k]) / 2
    turn = np.kron(U, Vt.T)
    found: Array = turn @ core @ turn.T
    return found


def hessian(B: Array, z: Array, mu: float) -> Array:
    """Return N − ΣK_i, mn × mn."""
    return len(B) * np.eye(z.size) - sum(derivative(b - z, mu) for b in B)


def exact(B: Array, mu: float, steps: int = 200) -> Exact:
    """Descend by damped Newton steps from the mean until the slope is rounding, or nothing lessens it."""
    z = np.zeros_like(B[0])
    damping, value, pull = 1.0, fit(B, z, mu), slope(B, z, mu)
    for _ in range(steps):
        H = hessian(B, z, mu)
        while damping < 1e9:
            there = z + np.linalg.solve(H + damping * np.eye(z.size), pull.ravel()).reshape(z.shape)
            lower, left = fit(B, there, mu), slope(B, there, mu)
            if lower < value or (
                lower <= value + 1e-13 * abs(value) and np.linalg.norm(left) < np.linalg.norm(pull)
            ):
                break
            damping *= 10
        else:
            break
        z, value, pull, damping = there, lower, left, max(damping / 30, 1e-9)
        if np.linalg.norm(pull) < 1e-14 * np.linalg.norm(B):
            break
    lowest = float(np.linalg.eigvalsh(hessian(B, z, mu))[0])
    return Exact(z, lowest, 2 * float(np.linalg.norm(pull)) / max(lowest, 1e-300))
