"""Singular value thresholding, and the scale on which a threshold means something."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

Tensor = torch.Tensor


class Spectrum(NamedTuple):
    """Right singular vectors (n × n) and values (n, descending) of a matrix with m ≥ n rows."""

    V: Tensor
    sigma: Tensor


class Shrunk(NamedTuple):
    """SVT(A; μ), its nuclear norm and its rank."""

    matrix: Tensor
    nuclear: float
    rank: int


def spectrum(matrix: Tensor) -> Spectrum:
    """Decompose an m × n matrix, m ≥ n, through its Gram matrix; exact to 1e-8 · σ_1 in float64."""
    eigenvalues, V = torch.linalg.eigh(matrix.T @ matrix)
    return Spectrum(V.flip(-1), eigenvalues.flip(-1).clamp(min=0).sqrt())


def svt(matrix: Tensor, mu: float, max_rank: int | None = None) -> Shrunk:
    """Return SVT(A; μ) = U max(Σ − μ, 0) Vᵀ for m ≥ n, cut to the largest `max_rank` values if given."""
    V, sigma = spectrum(matrix)
    rank = int((sigma > mu).sum())
    if max_rank is not None:
        rank = min(rank, max_rank)
    V, sigma = V[:, :rank], sigma[:rank]
    return Shrunk((matrix @ V) * (1 - mu / sigma) @ V.T, float((sigma - mu).sum()), rank)


def noise_edge(deviations: Sequence[Tensor]) -> float:
    """Return where the singular values of pure noise would end, for deviations B_i = θ_i − mean.

    s(√m + √n), with s² the mean square of the elements once the spikes beyond the edge are taken out;
    found by repetition, because edge and spikes define each other. Measured on the B_i, so s already carries
    the factor √(1 − 1/N) by which the mean's own noise shrinks them.
    """
    m, n = deviations[0].shape
    spectra = [spectrum(deviation).sigma for deviation in deviations]
    counts = [-1] * len(spectra)
    edge = math.inf
    while counts != (spikes := [int((sigma > edge).sum()) for sigma in spectra]):
        counts = spikes
        noise = sum(float(sigma[k:].square().sum()) for sigma, k in zip(spectra, counts, strict=True))
        elements = sum((m - k) * (n - k) for k in counts)
        edge = math.sqrt(noise / elements) * (math.sqrt(m) + math.sqrt(n)) if elements else 0.0
    return edge


def energy_edge(deviations: Sequence[Tensor]) -> float:
    """Return where the singular values would end if all of the deviations were noise: no spikes taken out."""
    m, n = deviations[0].shape
    energy = sum(float(deviation.square().sum()) for deviation in deviations)
    return math.sqrt(energy / (len(deviations) * m * n)) * (math.sqrt(m) + math.sqrt(n))
