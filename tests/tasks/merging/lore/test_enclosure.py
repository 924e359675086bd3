"""A bound on the distance of any minimiser, from any z: weights in few digits need no curvature."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.merging.lore.certificate import limit_of, residuals
from tasks.merging.lore.converge import converged, prove_anywhere
from tasks.merging.lore.enclosure import encloses, error_anywhere, from_mean
from tasks.merging.lore.penalty import Scale
from tasks.merging.lore.problem import Near
from tests.support.lore_checks import DTYPES, ignore
from tests.support.lore_curvature_reference import exact
from tests.support.lore_factors import iterate
from tests.support.lore_matrices import TRAJECTORIES, family, trajectory
from tests.support.lore_reference import Array, minimise, primal, svt


def stored(B: Array, digits: float) -> Array:
    """Return deviations of weights that are rounded to so many deviations, as bfloat16 does."""
    size = float(np.sqrt(np.mean(B**2))) * digits or 1.0
    rounded = np.round((B + np.random.default_rng(0).standard_normal(B.shape[1:])) / size) * size
    return rounded - rounded.mean(axis=0)


@given(
    kind=st.sampled_from(list(TRAJECTORIES)),
    N=st.integers(3, 6),
    m=st.integers(1, 6),
    n=st.integers(1, 6),
    seed=st.integers(0, 99),
    place=st.floats(0, 1),
    factor=st.sampled_from([1.0, 1 + 1e-6, 1 - 1e-6, 0.9, 1.1, 0.5]),
    away=st.floats(-4, 1),
    dtype=st.sampled_from(DTYPES),
    coarse=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_no_minimiser_is_further_away_than_is_proven_from_anywhere(
    kind: str,
    N: int,
    m: int,
    n: int,
    seed: int,
    place: float,
    factor: float,
    away: float,
    dtype: torch.dtype,
    coarse: bool,
) -> None:
    """Also of weights that were rounded coarsely, and in either precision."""
    m, n = max(m, n), min(m, n)
    B = trajectory(kind, N, m, n, seed)
    B = stored(B, 2.0) if coarse else B
    sigma = np.sort(np.linalg.svd(B, compute_uv=False).ravel())
    mu = factor * float(sigma[int(place * (len(sigma) - 1))])
    if mu < max(1e-2 * sigma[-1], 1e-9):  # below, float32 proves nothing
        return
    best = exact(B, mu)
    X = np.random.default_rng(seed).standard_normal((m, n))
    z = best.z + mu * 10**away * X / np.linalg.norm(X)
    here = iterate(B, z, mu, dtype)
    given = torch.from_numpy(B).to(dtype)
    distances = residuals(given, here)
    rounding = 1e-5 * np.linalg.norm(B) if dtype == torch.float32 else 0.0
    assert from_mean(here, limit_of(here), distances) >= np.linalg.norm(best.z) - best.off - rounding
    assert error_anywhere(here, limit_of(here), distances) >= np.linalg.norm(z - best.z) - best.off - rounding
    found = prove_anywhere(given, float(np.sum(B**2)), here, distances)
    if found is not None:
        assert found.error == error_anywhere(here, limit_of(here), distances)
        value, least = (primal(B, np.stack([svt(b - at, mu) for b in B]), mu) for at in (z, best.z))
        assert value - least <= (found.gap + 1e-6 * (rounding > 0) + 1e-13) * value


@pytest.mark.parametrize("kind", [kind for kind in TRAJECTORIES if kind != "strong"])
def test_at_the_minimum_it_is_little_more_than_the_nuclear_norms(kind: str) -> None:
    """‖z*‖_F ≤ Σ‖δ_i‖_*/N, and a lower threshold's task vectors take more."""
    B = trajectory(kind, 5, 30, 20, 0)
    mu = float(np.sort(np.linalg.svd(B, compute_uv=False), axis=1)[:, -3].max())
    best = minimise(B, mu, gap=1e-10)
    here = iterate(B, best.z, mu)
    prices, lower = (
        sum(np.linalg.norm(svt(b - best.z, at), "nuc") for b in B) / len(B) for at in (mu, 0.875 * mu)
    )
    assert np.linalg.norm(best.z) <= prices
    assert prices <= from_mean(here, limit_of(here), [0.0] * len(B)) <= 1.5 * lower + 0.1 * mu


@pytest.mark.parametrize("N", [4, 6])
def test_of_a_flat_minimum_every_minimiser_is_enclosed(N: int) -> None:
    """Every z between the two checkpoints in the middle, less μ, is one."""
    D = np.outer(np.eye(7)[0], np.eye(5)[0])
    height = 3.0
    B = np.stack([t * D for t in np.linspace(-1, 1, N)]) * height * (N - 1)
    here = iterate(B, 0.9 * (height - 1) * D, 1.0)
    assert here.norms.length < 1e-12
    assert (height - 1) * 1.9 <= error_anywhere(here, limit_of(here), [0.0] * N) < 30


def test_far_from_the_minimum_nothing_is_claimed() -> None:
    B = family("spikes", 3, 20, 14, 0)
    here = iterate(B, 30 * np.random.default_rng(0).standard_normal((20, 14)), 8.0)
    assert math.isinf(error_anywhere(here, limit_of(here), [0.0] * 3))
    assert not encloses(here, limit_of(here), 1e9)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(60, 50), (450, 420)])
def test_a_coarse_tolerance_is_met_in_fewer_passes_and_true(
    shape: tuple[int, int], dtype: torch.dtype
) -> None:
    """Tolerances of two deviations, as bfloat16 has: what is found is far nearer than that."""
    rng = np.random.default_rng(0)
    D = rng.standard_normal((shape[0], 3)) @ rng.standard_normal((3, shape[1]))
    line = [t * 0.6 * D + rng.standard_normal(shape) for t in np.linspace(-1, 1, 5)]
    B = np.stack(line) - np.mean(line, axis=0)
    size, scale = float(np.linalg.norm(B)) / 5**0.5, Scale(1.05, "auto", "nuclear", shape)
    given = torch.from_numpy(B).to(dtype)
    coarse, fine = (
        converged(given.to(kind), scale, Near(share * size), ignore)
        for share, kind in ((2.0, dtype), (1e-6, torch.float64))
    )
    assert coarse.here.passes < fine.here.passes
    apart = float(np.linalg.norm(coarse.here.z.matrix().double().numpy() - fine.here.z.matrix().numpy()))
    assert apart - fine.proof.error <= coarse.proof.error <= 2.0 * size
    assert apart < 0.1 * size


@pytest.mark.parametrize("which", [0, -1])
def test_a_triplet_left_out_is_refused(which: int) -> None:
    B, mu = family("spikes", 3, 20, 14, 0), 8.0
    here = iterate(B, minimise(B, mu, gap=1e-12).z, mu)
    given, total = torch.from_numpy(B), float(np.sum(B**2))
    assert prove_anywhere(given, total, here, residuals(given, here)) is not None
    first = here.leading[0]
    kept = [j for j in range(first.rank) if j != which % here.deltas[0].rank]
    fewer = first._replace(U=first.U[:, kept], sigma=first.sigma[kept], V=first.V[:, kept])
    lacking = here._replace(leading=[fewer, *here.leading[1:]])
    assert prove_anywhere(given, total, lacking, residuals(given, lacking)) is None
