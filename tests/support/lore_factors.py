"""Exact factors by numpy: what a solver's parts are given and compared with."""

import numpy as np
import torch

from tasks.merging.lore.algebra import Factors, Spanned
from tasks.merging.lore.place import norms_of
from tasks.merging.lore.problem import Iterate
from tests.support.lore_reference import Array, threshold

CUT = 0.85


def factors(A: Array, mu: float = 0.0, kind: str = "nuclear", dtype: torch.dtype = torch.float64) -> Factors:
    """Return the proximal map of A as factors."""
    U, sigma, Vt = np.linalg.svd(A, full_matrices=False)
    t = threshold(sigma, mu, kind)
    r = int((sigma > t).sum())
    parts = (U[:, :r], sigma[:r] - t, Vt[:r].T)
    return Factors(*(torch.from_numpy(np.ascontiguousarray(part)).to(dtype) for part in parts))


def thresholds(B: Array, mu: float, kind: str = "nuclear") -> list[float]:
    """Return what the proximal map takes off each."""
    return [threshold(np.linalg.svd(b, compute_uv=False), mu, kind) for b in B]


def spanned(matrix: torch.Tensor) -> Spanned:
    """Return a matrix as a product in which it is the core."""
    m, n = matrix.shape
    return Spanned(torch.eye(m, dtype=matrix.dtype), matrix, torch.eye(n, dtype=matrix.dtype))


def iterate(B: Array, z: Array, mu: float, dtype: torch.dtype = torch.float64, cut: float = CUT) -> Iterate:
    """Return the iterate at z by full singular value decompositions."""
    found = [factors(b - z).above(cut * mu).to(dtype) for b in B]
    deltas = [part.thresholded(mu) for part in found]
    given = torch.from_numpy(z.copy()).to(dtype)
    at = spanned(given)
    return Iterate(at, found, deltas, norms_of(at, deltas), mu, cut, 1)


def place_of(here: Iterate) -> Array:
    """Return −S/N, where θ_0 is put."""
    place: Array = -np.mean([delta.matrix().double().cpu().numpy() for delta in here.deltas], axis=0)
    return place


def double(matrix: torch.Tensor) -> Array:
    """Return a matrix in float64 numpy, wherever it is."""
    found: Array = matrix.double().cpu().numpy()
    return found
