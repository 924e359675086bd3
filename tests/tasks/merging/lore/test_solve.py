"""Every way to solve against full float64 SVDs whose own duality gap is 1e-10."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.merging.lore.penalty import Scale
from tasks.merging.lore.problem import Solution
from tasks.merging.lore.solve import solve
from tests.support.lore_checks import DTYPES, check, matrices, off, on_devices
from tests.support.lore_matrices import SPECTRA, family
from tests.support.lore_reference import Array, algorithm_1, dual, noise_edge, primal

SIDES = st.one_of(st.just(1), st.integers(2, 12), st.integers(13, 40))
TOLERANCES = [1e-4, 1e-8]
WITHOUT_NOISE = 1e-6
"""Where the edge is a smaller share of the largest singular value, there is no noise to scale by."""


def rounded(B: Array, dtype: torch.dtype, device: str = "cpu") -> tuple[torch.Tensor, Array]:
    """Return what is solved, and the same numbers in float64."""
    given = torch.from_numpy(B).to(device, dtype)
    return given, given.double().cpu().numpy()


def unit(B: Array) -> float:
    largest = float(np.linalg.norm(B, 2, axis=(1, 2)).max())
    return edge if (edge := noise_edge(B)) > WITHOUT_NOISE * largest else 0.3 * largest


def run(B: torch.Tensor, mu: float, tolerance: float, kind: str = "nuclear") -> Solution:
    return solve(B, Scale(mu, "absolute", kind, (B.shape[1], B.shape[2])), tolerance)  # type: ignore[arg-type]


@given(
    spectrum=st.sampled_from([name for name in SPECTRA if name != "outlier 1e8"]),
    N=st.integers(3, 10),
    m=SIDES,
    n=SIDES,
    seed=st.integers(0, 999),
    mu=st.floats(-1, 1).map(lambda x: 0.5 * 6**x),
    dtype=st.sampled_from(DTYPES),
    tolerance=st.sampled_from(TOLERANCES),
)
@settings(max_examples=40, deadline=None)
def test_any_matrices_are_solved_to_the_tolerance(
    spectrum: str, N: int, m: int, n: int, seed: int, mu: float, dtype: torch.dtype, tolerance: float
) -> None:
    B, exact = rounded(family(spectrum, N, m, n, seed), dtype)
    if unit(exact) > 0:
        check(run(B, mu * unit(exact), tolerance), exact, tolerance)


@given(
    N=st.integers(3, 6),
    m=st.integers(1, 30),
    n=st.integers(1, 4),
    seed=st.integers(0, 999),
    mu=st.floats(0.01, 0.2),
    tolerance=st.sampled_from(TOLERANCES),
)
@settings(max_examples=20, deadline=None)
def test_small_thresholds_are_solved_to_the_tolerance(
    N: int, m: int, n: int, seed: int, mu: float, tolerance: float
) -> None:
    """Down to a hundredth of the noise edge: a spectral median, almost."""
    B = family("spikes", N, m, n, seed)
    check(run(torch.from_numpy(B), mu * noise_edge(B), tolerance), B, tolerance)


@given(
    spectrum=st.sampled_from([name for name in SPECTRA if not name.startswith("outlier")]),
    N=st.integers(3, 8),
    m=SIDES,
    n=SIDES,
    seed=st.integers(0, 999),
    mu=st.floats(0.02, 3),
    dtype=st.sampled_from(DTYPES),
    tolerance=st.sampled_from(TOLERANCES),
)
@settings(max_examples=20, deadline=None)
def test_the_squared_penalty_is_solved_to_the_tolerance(
    spectrum: str, N: int, m: int, n: int, seed: int, mu: float, dtype: torch.dtype, tolerance: float
) -> None:
    B, exact = rounded(family(spectrum, N, m, n, seed), dtype)
    if exact.any():
        check(run(B, mu, tolerance, "squared"), exact, tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(20, 12), (9, 1), (1, 9)])
def test_one_entry_a_hundred_million_times_the_others(dtype: torch.dtype, shape: tuple[int, int]) -> None:
    B, exact = rounded(family("outlier 1e8", 4, *shape, 0), dtype)
    for mu in (0.5, 2.0):
        check(run(B, mu * noise_edge(exact), 1e-4), exact, 1e-4, gap=1e-8)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_checkpoint_that_differs_from_equal_ones(dtype: torch.dtype) -> None:
    """One matrix of rank one, the others zero before the mean is taken off."""
    given = np.zeros((4, 12, 9))
    given[2] = np.outer(np.arange(12.0), np.ones(9))
    B, exact = rounded(given - given.mean(axis=0), dtype)
    check(run(B, 1.0, 1e-6), exact, 1e-6)


WAYS = {
    "newton": ("spikes", 3, 320, 300, 1.05, torch.float32, 1e-4),
    "newton float64": ("spikes", 3, 310, 300, 1.05, torch.float64, 1e-8),
    "newton wide": ("spikes", 4, 150, 210, 1.05, torch.float32, 1e-4),
    "newton by subspaces": ("spikes", 3, 420, 410, 1.05, torch.float32, 1e-4),
    "newton, half active": ("spikes", 3, 180, 160, 0.5, torch.float32, 1e-4),
    "newton, most active": ("spikes", 3, 300, 300, 0.6, torch.float32, 1e-3),
    "tall": ("spikes", 3, 1100, 130, 1.05, torch.float32, 1e-4),
    "tall narrow": ("spikes", 4, 400, 30, 1.05, torch.float32, 1e-4),
    "tall float64": ("spikes", 3, 400, 40, 1.05, torch.float64, 1e-8),
    "tall turned": ("spikes", 3, 30, 300, 1.05, torch.float32, 1e-4),
}


@on_devices
@pytest.mark.parametrize("way", WAYS)
def test_every_way_is_taken_and_reaches_the_minimum(way: str, device: str) -> None:
    """And S, whose error no gap bounds by itself, is within 1e-3 on matrices such as trajectories have."""
    spectrum, N, m, n, mu, dtype, tolerance = WAYS[way]
    B, exact = rounded(family(spectrum, N, m, n, 0), dtype, device)
    solution = run(B, mu * noise_edge(exact), tolerance)
    assert solution.solver == way.split()[0].rstrip(",")
    if "," in way:
        assert solution.deltas[0].U.dtype == dtype  # no need for float64
    best = check(solution, exact, tolerance)
    assert off(matrices(solution).sum(axis=0), best.deltas.sum(axis=0)) < 10 * tolerance


@on_devices
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(2500, 300), (600, 500)])
def test_large_matrices_are_proven_by_full_decompositions(
    shape: tuple[int, int], dtype: torch.dtype, device: str
) -> None:
    """The gap of the task vectors by definition, which needs no minimum to compare with."""
    B, exact = rounded(family("spikes", 3, *shape, 1), dtype, device)
    solution = solve(B, Scale(1.05, "noise_edge", "nuclear", shape), 1e-4)
    mu, deltas = solution.penalty.mu, matrices(solution)
    proven = 1 - dual(exact, deltas, mu) / primal(exact, deltas, mu)
    assert proven <= solution.gap <= 1e-4


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("N", [2, 3, 5])
@pytest.mark.parametrize("shape", [(7, 4), (200, 180)])
def test_identical_checkpoints_leave_nothing_to_solve(
    dtype: torch.dtype, N: int, shape: tuple[int, int]
) -> None:
    for unit in ("absolute", "sigma1", "noise_edge"):
        solution = solve(torch.zeros(N, *shape, dtype=dtype), Scale(1.0, unit, "nuclear", shape), 1e-4)  # type: ignore[arg-type]
        assert solution.solver == ("symmetric" if N == 2 else "zero")
        assert not matrices(solution).any()
        assert solution.passes == 0


@pytest.mark.parametrize("K", [1, 2, 10])
@pytest.mark.parametrize("shape", [(12, 9), (5, 14)])
def test_passes_are_those_of_algorithm_1_as_printed(K: int, shape: tuple[int, int]) -> None:
    B = family("spikes", 3, *shape, 0)
    mu = 0.1 * noise_edge(B)
    solution = solve(torch.from_numpy(B), Scale(mu, "absolute", "nuclear", shape), 1e-4, passes=K)
    np.testing.assert_allclose(matrices(solution), algorithm_1(B, mu, K), atol=1e-8)
    assert (solution.solver, solution.passes) == ("passes", K)
    assert solution.gap > 1e-4  # not converged, and it says how far it is
