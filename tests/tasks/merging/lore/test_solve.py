"""Every way to solve against full float64 SVDs whose own duality gap is 1e-10."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.merging.lore import newton, triplets
from tasks.merging.lore import spectrum as spectra
from tasks.merging.lore.converge import GAP_INSTEAD
from tasks.merging.lore.penalty import Scale
from tasks.merging.lore.problem import Near, Solution
from tasks.merging.lore.solve import solve
from tasks.merging.lore_question import last_place
from tests.support.lore_checks import DTYPES, as_on_a_gpu, check, matrices, off, on_devices
from tests.support.lore_curvature_reference import exact
from tests.support.lore_matrices import SPECTRA, TRAJECTORIES, family, trajectory
from tests.support.lore_reference import Array, algorithm_1, dual, minimise, noise_edge, primal, svt
from tests.support.marks import slow

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


def run(B: torch.Tensor, mu: float, tolerance: float | Near, kind: str = "nuclear") -> Solution:
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
    kind=st.sampled_from(list(TRAJECTORIES)),
    N=st.integers(3, 6),
    m=st.integers(1, 10),
    n=st.integers(1, 10),
    seed=st.integers(0, 999),
    place=st.floats(0, 1),
    factor=st.sampled_from([1.0, 1 + 1e-6, 1 - 1e-6, 1.1, 0.9, 0.5]),
    dtype=st.sampled_from(DTYPES),
    near=st.sampled_from([None, 2.0, 1 / 256, 1e-4, 1e-6]),
)
@settings(max_examples=120, deadline=None)
def test_gap_and_error_are_upper_bounds_and_within_the_tolerance(
    kind: str,
    N: int,
    m: int,
    n: int,
    seed: int,
    place: float,
    factor: float,
    dtype: torch.dtype,
    near: float | None,
) -> None:
    """μ at, just above, just below or beside a singular value; the minimum by damped Newton steps on all elements."""
    B, doubled = rounded(trajectory(kind, N, m, n, seed), dtype)
    exactly = doubled - doubled.mean(axis=0)
    deviation = float(np.linalg.norm(exactly)) / N**0.5
    sigma = np.sort(np.linalg.svd(exactly, compute_uv=False).ravel())
    mu = factor * float(sigma[int(place * (len(sigma) - 1))])
    if mu < max(1e-4 * sigma[-1], 1e-9):
        return
    tolerance = 1e-4 if near is None else Near(near * deviation)
    found = run(B, mu, tolerance)
    if isinstance(tolerance, Near):
        assert found.error <= tolerance.distance or found.gap <= GAP_INSTEAD
    else:
        assert found.gap <= tolerance
    best, deltas = exact(exactly, mu), matrices(found)
    apart = np.linalg.norm(deltas.mean(axis=0) + best.z)
    assert apart <= found.error + best.off + 1e-13 * deviation
    value, least = (
        primal(exactly, those, mu) for those in (deltas, np.stack([svt(b - best.z, mu) for b in exactly]))
    )
    assert value - least <= found.gap * value + 1e-14 * np.sum(exactly**2)


@pytest.mark.parametrize("N", [4, 6])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("height", [3.0, 30.0])
def test_no_distance_is_claimed_where_minimisers_lie_apart(height: float, dtype: torch.dtype, N: int) -> None:
    """An even number of checkpoints on a line: whatever lies between the two in the middle, less μ, is as good."""
    D = np.outer(np.arange(1.0, 9.0), np.ones(6))
    line = np.linspace(-1, 1, N)[:, None, None] * D
    B, _ = rounded(line, dtype)
    mu = float(np.linalg.norm(D, 2)) / (N - 1) / height
    for tolerance in (1e-4, Near(0.01), Near(1e-5)):
        found = run(B, mu, tolerance)
        assert math.isinf(found.error)
        assert found.gap <= 1e-4


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", [kind for kind in TRAJECTORIES if kind != "drift"])
@pytest.mark.parametrize(("N", "shape"), [(3, (120, 90)), (5, (70, 100))])
def test_the_error_of_the_default_is_no_more_than_a_hundred_times_the_true_one(
    kind: str, N: int, shape: tuple[int, int], dtype: torch.dtype
) -> None:
    """With μ of scale auto; true errors near float32's rounding are not compared."""
    B, exactly = rounded(trajectory(kind, N, *shape, 0), dtype)
    deviation = float(np.linalg.norm(exactly)) / N**0.5
    found = solve(B, Scale(1.05, "auto", "nuclear", shape), Near(deviation / 256))
    best = minimise(exactly - exactly.mean(axis=0), found.penalty.mu, gap=1e-13, limit=3000).z
    apart = np.linalg.norm(matrices(found).mean(axis=0) + best)
    assert apart <= found.error <= deviation / 256
    assert found.error <= max(100 * apart, 3e-4 * deviation)


@pytest.mark.parametrize("kind", [kind for kind in TRAJECTORIES if kind != "drift"])
@pytest.mark.parametrize(("near", "dtype"), [(1 / 256, torch.float32), (1e-8, torch.float64)])
def test_float64_is_solved_in_float32_where_that_proves_enough(
    kind: str, near: float, dtype: torch.dtype
) -> None:
    """As the cores of adapters are; what is proven holds for the float64 deviations. Strong spikes need these."""
    B = trajectory(kind, 3, 110, 90, 0)
    deviation = float(np.linalg.norm(B)) / 3**0.5
    found = solve(torch.from_numpy(B), Scale(1.05, "auto", "nuclear", (110, 90)), Near(near * deviation))
    used = {part.dtype for delta in found.deltas for part in delta}
    assert used == {torch.float64 if kind == "strong" else dtype}
    best = minimise(B - B.mean(axis=0), found.penalty.mu, gap=1e-13, limit=3000).z
    apart = np.linalg.norm(matrices(found).mean(axis=0) + best)
    assert apart <= found.error + 1e-9 * deviation
    assert found.error <= near * deviation or found.gap <= GAP_INSTEAD


@pytest.mark.parametrize("kind", [kind for kind in TRAJECTORIES if kind != "drift"])
@pytest.mark.parametrize("digits", [0.5, 3.0, 30.0])
def test_what_is_written_in_bfloat16_is_as_near_as_is_proven_and_no_hundred_times_nearer(
    digits: float, kind: str
) -> None:
    """θ_0, rounded, against the exact one; checkpoints that differ by so many last places, as they are stored."""
    made = trajectory(kind, 3, 120, 90, 0)
    place = last_place("BF16", 1.0)
    made *= digits * place * 120**0.5 * 90**0.5 / (np.linalg.norm(made) / 3**0.5)
    base = 1.5 + 0.3 * np.random.default_rng(1).random((120, 90))
    thetas = torch.from_numpy(base + made).bfloat16().double()
    mean, half = thetas.mean(0), 0.5 * place * (120 * 90) ** 0.5
    B = thetas - mean
    tolerance = Near(max(half, float(B.norm()) / 3**0.5 / 256))
    found = solve(B.float(), Scale(1.05, "auto", "nuclear", (120, 90)), tolerance)
    best = minimise(B.numpy(), found.penalty.mu, gap=1e-12, limit=3000).z
    written = (mean - torch.from_numpy(matrices(found).mean(axis=0))).bfloat16().double().numpy()
    off = np.linalg.norm(written - (mean.numpy() + best))
    assert math.isfinite(found.error)
    assert off <= found.error + half <= 100 * off


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", [slow(kind) if kind == "drift" else kind for kind in TRAJECTORIES])
def test_the_same_deviations_give_the_same_bytes(
    kind: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By eigenpairs and by subspaces; and the deviations are left as they were."""
    B, _ = rounded(trajectory(kind, 4, 110, 90, 0), dtype)
    given = B.clone()
    for direct in (triplets.DIRECT, 30):
        for module in (triplets, spectra, newton):
            monkeypatch.setattr(module, "DIRECT", direct)
        first, second = (solve(B, Scale(1.05, "auto", "nuclear", (110, 90)), 1e-4) for _ in range(2))
        for one, other in zip(first.deltas, second.deltas, strict=True):
            assert all(torch.equal(part, same) for part, same in zip(one, other, strict=True))
        assert first._replace(deltas=[]) == second._replace(deltas=[])
        assert torch.equal(B, given)


@pytest.mark.parametrize("kind", TRAJECTORIES)
@pytest.mark.parametrize("N", [3, slow(4)])
def test_subspaces_reach_the_minimum_that_eigenpairs_reach(
    kind: str, N: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond DIRECT columns; the gap of the task vectors by definition, the distance between both solutions."""
    B, exactly = rounded(trajectory(kind, N, 150, 120, 0), torch.float32)
    deviation = float(np.linalg.norm(exactly)) / N**0.5
    mu = 1.05 * max(noise_edge(exactly), float(np.linalg.svd(exactly, compute_uv=False)[:, 6].max()))
    found = [run(B, mu, Near(deviation / 256))]
    for module in (triplets, spectra, newton):
        monkeypatch.setattr(module, "DIRECT", 30)
    found.append(run(B, mu, Near(deviation / 256)))
    for one in found:
        deltas = matrices(one)
        assert 1 - dual(exactly, deltas, mu) / primal(exactly, deltas, mu) <= one.gap + 1e-12
    apart = np.linalg.norm(matrices(found[0]).mean(axis=0) - matrices(found[1]).mean(axis=0))
    assert apart <= found[0].error + found[1].error


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


# those of a second or two here, the others by make test-long
QUICK = ("tall narrow", "tall float64", "tall turned", "newton, half active")


@on_devices
@pytest.mark.parametrize("way", [way if way in QUICK else slow(way) for way in WAYS])
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


@pytest.mark.parametrize("way", [way if way in QUICK else slow(way) for way in WAYS])
def test_the_way_of_a_gpu_reaches_the_minimum(way: str) -> None:
    """With CPU tensors, so that it is tried where there is no GPU."""
    with as_on_a_gpu():
        test_every_way_is_taken_and_reaches_the_minimum(way, "cpu")


@on_devices
@pytest.mark.slow
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
