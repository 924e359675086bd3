"""Matrices whose leading triplets are looked for, and what triplets are held to."""

from collections.abc import Callable

import numpy as np

from tasks.merging.lore.algebra import Factors
from tests.support.lore_matrices import SPECTRA, with_spectrum
from tests.support.lore_reference import Array

KINDS: dict[str, Callable[[np.random.Generator, int, int], Array]] = {
    **{name: SPECTRA[name] for name in ("spikes", "power law", "low rank", "rank one")},
    "noise": lambda rng, m, n: rng.standard_normal((m, n)),
    "falling": lambda rng, m, n: with_spectrum(rng, m, n, 0.9 ** np.arange(n)),
}


def made(kind: str, seed: int = 0, m: int = 170, n: int = 150) -> tuple[Array, Array]:
    A = KINDS[kind](np.random.default_rng(seed), m, n)
    return A, np.linalg.svd(A, compute_uv=False)


def check_triplets(found: Factors, A: Array, sigma: Array, residual: float) -> None:
    """Hold triplets to A's: orthonormal, as many as that exceed, and no further off than their residual."""
    U, s, V = (part.double().cpu().numpy() for part in found)
    for part in (U, V):
        np.testing.assert_allclose(part.T @ part, np.eye(found.rank), atol=2e-5)
    assert np.linalg.norm(A @ V - U * s) <= residual
    assert np.linalg.norm(A.T @ U - V * s) <= residual
    np.testing.assert_allclose(s, sigma[: found.rank], atol=residual)
