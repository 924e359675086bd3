"""Shrinking the rows of tall matrices changes neither the problem nor its solution."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.merging.lore import dense, tall_matrices
from tasks.merging.lore.algebra import Norms
from tasks.merging.lore.penalty import Scale
from tasks.merging.lore.place import nowhere
from tasks.merging.lore.problem import Iterate
from tasks.merging.lore.solve import solve
from tests.support.lore_checks import DTYPES, check, ignore, matrices, off, on_devices
from tests.support.lore_factors import factors
from tests.support.lore_matrices import family
from tests.support.lore_reference import minimise, noise_edge


@on_devices
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("chunk", [7, 2**11])
def test_all_products_are_kept(
    dtype: torch.dtype, chunk: int, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B_iᵀB_j for all i and j, those with the last matrix too, in chunks of rows of any size."""
    monkeypatch.setattr(tall_matrices, "ROWS_AT_ONCE", chunk)
    B = torch.from_numpy(family("spikes", 4, 90, 6, 0)).to(device, dtype)
    small = tall_matrices.triangular(B)
    assert small is not None
    assert (small.shape, small.dtype) == ((4, 18, 6), dtype)
    exact, found = (part.double().cpu().numpy() for part in (B, small))
    expected = np.einsum("iab,jac->ijbc", exact, exact)
    np.testing.assert_allclose(
        np.einsum("iab,jac->ijbc", found, found), expected, atol=20 * torch.finfo(dtype).eps * expected.max()
    )


@given(N=st.integers(3, 5), n=st.integers(1, 8), seed=st.integers(0, 99), share=st.floats(0.3, 1.2))
@settings(max_examples=15, deadline=None)
def test_the_exact_fixed_point_stays_where_it_is(N: int, n: int, seed: int, share: float) -> None:
    """Its right singular vectors and shares alone give the left ones back."""
    B = family("spikes", N, 60, n, seed)
    mu = share * noise_edge(B)
    z = minimise(B, mu, gap=1e-12).z
    exact = [factors(b - z, mu) for b in B]
    scrambled = [delta._replace(U=torch.full_like(delta.U, float("nan"))) for delta in exact]
    refreshed = tall_matrices.refresh(torch.from_numpy(B), scrambled, mu)
    for found, delta in zip(refreshed, exact, strict=True):
        np.testing.assert_allclose(found.matrix(), delta.matrix(), atol=1e-4 * np.linalg.norm(B[0]))


def test_no_active_singular_value_is_no_task_vector() -> None:
    B = family("spikes", 3, 60, 5, 0)
    solution = solve(torch.from_numpy(B), Scale(1e4, "absolute", "nuclear", (60, 5)), 1e-4)
    assert solution.solver == "tall"
    assert not matrices(solution).any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("N", "m", "n", "share"),
    [(3, 300, 20, 1.0), (3, 20, 300, 1.0), (6, 100, 2, 0.6), (3, 60, 1, 0.6), (3, 1, 60, 0.6)],
)
def test_it_reaches_the_minimum(dtype: torch.dtype, N: int, m: int, n: int, share: float) -> None:
    B = torch.from_numpy(family("spikes", N, m, n, 2)).to(dtype)
    exact = B.double().numpy()
    solution = solve(B, Scale(share * noise_edge(exact), "absolute", "nuclear", (m, n)), 1e-4)
    assert solution.solver == "tall"
    best = check(solution, exact, 1e-4)
    assert off(matrices(solution), best.deltas) < 2e-3


@pytest.mark.parametrize("kind", ["nuclear", "squared"])
def test_it_is_the_solution_of_full_decompositions(kind: str) -> None:
    B = torch.from_numpy(family("spikes", 3, 120, 8, 0))
    scale = Scale(
        0.5 if kind == "nuclear" else 0.05, "noise_edge" if kind == "nuclear" else "absolute", kind, (120, 8)
    )  # type: ignore[arg-type]
    shrunk_first, whole = solve(B, scale, 1e-9), dense.solve_densely(B, scale, 1e-9, ignore)
    assert shrunk_first.solver == ("tall" if kind == "nuclear" else "dense")
    assert off(matrices(shrunk_first), matrices(whole)) < 1e-3
    assert shrunk_first.edge == pytest.approx(whole.edge, rel=1e-6)


@pytest.mark.parametrize("height", [1e4, 1e6])
def test_where_squares_in_float32_lose_the_small_they_are_taken_in_float64(height: float) -> None:
    """What comes out is proven on the matrices in float64, too: nothing of the whole is solved again."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((3, 200, 10))
    noise[0, 3, 4] += height
    B = torch.from_numpy(noise - noise.mean(axis=0)).float()
    exact = B.double().numpy()
    solution = solve(B, Scale(noise_edge(exact), "absolute", "nuclear", (200, 10)), 1e-4)
    assert solution.solver == "tall"
    check(solution, exact, 1e-4, gap=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_where_few_rows_differ_single_precision_is_enough(seed: int) -> None:
    """As of an embedding of which few tokens were seen: the products are singular."""
    B = np.zeros((5, 900, 40))
    B[:, ::10] = family("spikes", 5, 90, 40, seed)
    given = torch.from_numpy(B).float()
    exact = given.double().numpy()
    small = tall_matrices.triangular(given)
    assert small is not None
    assert small.dtype == torch.float32
    mu = noise_edge(exact)
    solution = solve(given, Scale(mu, "absolute", "nuclear", (900, 40)), 1e-4)
    assert solution.solver == "tall"
    check(solution, exact, 1e-4)


@pytest.mark.parametrize(
    ("N", "m", "n", "worth"), [(3, 80, 10, True), (3, 79, 10, False), (5, 100, 10, False)]
)
def test_tall_is_four_times_the_rows_of_the_triangular_factor(N: int, m: int, n: int, worth: bool) -> None:
    assert tall_matrices.is_tall(torch.zeros(N, m, n)) == worth


def test_what_is_wrong_on_the_triangular_factor_is_solved_on_the_matrices(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing that was computed on the factor is believed: the proof is on the matrices themselves."""
    B = family("spikes", 3, 90, 6, 0)
    direct = tall_matrices.triangular
    monkeypatch.setattr(tall_matrices, "triangular", lambda B: 1.01 * direct(B).roll(1, dims=2))
    solution = solve(torch.from_numpy(B), Scale(1.0, "noise_edge", "nuclear", (90, 6)), 1e-8)
    assert solution.solver == "newton"
    check(solution, B, 1e-8)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_lifted_minimum_is_the_minimum(dtype: torch.dtype) -> None:
    """z, task vectors and step of the large matrices follow from right singular vectors alone."""
    B = family("spikes", 4, 80, 5, 0)
    mu = 0.7 * noise_edge(B)
    best = minimise(B, mu, gap=1e-13)
    leading = [factors(b - best.z).above(0.85 * mu).to(dtype) for b in B]
    none, deltas = nowhere(torch.zeros(15, 5, dtype=dtype)), [part.thresholded(mu) for part in leading]
    small = Iterate(none, leading, deltas, Norms(0.0, 0.0, 0.0), mu, 0.85, 7)
    here = tall_matrices.lifted(torch.from_numpy(B).to(dtype), small)
    tolerance = (2e-5 if dtype == torch.float32 else 1e-5) * np.linalg.norm(B[0])
    np.testing.assert_allclose(here.z.matrix(), best.z, atol=tolerance)
    assert here.norms.length <= tolerance
    for found, delta in zip(here.deltas, best.deltas, strict=True):
        np.testing.assert_allclose(found.matrix(), delta, atol=tolerance)
