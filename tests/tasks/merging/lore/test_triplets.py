"""Leading singular triplets are those of numpy, from eigenpairs and from subspaces."""

from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.merging.lore import triplets
from tasks.merging.lore.algebra import Factors, Shifted, Spanned, gaussian, zero
from tasks.merging.lore.converge import ATTEMPTS
from tests.support.lore_checks import DTYPES, as_on_a_gpu, on_devices
from tests.support.lore_factors import factors
from tests.support.lore_matrices import edge, with_spectrum
from tests.support.lore_triplets import KINDS, check_triplets, made

SHARP = 1e-3
on_kinds = pytest.mark.parametrize("kind", KINDS)
on_dtypes = pytest.mark.parametrize("dtype", DTYPES)


@pytest.fixture(params=[40, 1000], ids=["subspaces", "eigenpairs"])
def direct(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(triplets, "DIRECT", request.param)
    return int(request.param)


def sought(limit: float, sharp: float, thorough: bool = False) -> triplets.Sought:
    """Ask for all that exceeds a limit, equally sharp."""
    return triplets.Sought(limit, limit, sharp, sharp, thorough)


@on_devices
@on_dtypes
@on_kinds
@pytest.mark.parametrize("known", [0, 6])
def test_all_that_exceeds_a_limit_is_found(
    kind: str, known: int, dtype: torch.dtype, device: str, direct: int
) -> None:
    """From nothing, and from a subspace that holds a part of it; there within as many calls as proofs may fail."""
    A, sigma = made(kind)
    count = int(np.sum(sigma > 1e-9 * sigma[0])) if kind in ("low rank", "rank one") else 7
    count = min(count, 7)
    limit = (sigma[count - 1] + sigma[count]) / 2
    size = float(np.linalg.norm(A))
    start = factors(A).truncated(known).to(dtype)
    start = Factors(*(part.to(device) for part in start))
    given_matrix = torch.from_numpy(A).to(device, dtype)
    for _ in range(ATTEMPTS if known else 1):
        found = triplets.triplets_above(given_matrix, sought(limit, SHARP * size, True), [start])
        [start] = found
    assert start.U.dtype == dtype
    assert int((start.sigma > limit).sum()) == count
    check_triplets(start.above(limit), A, sigma, SHARP * size)


@on_dtypes
@on_kinds
@pytest.mark.parametrize("known", [0, 6])
def test_the_way_of_a_gpu_finds_them_too(kind: str, known: int, dtype: torch.dtype, direct: int) -> None:
    with as_on_a_gpu():
        test_all_that_exceeds_a_limit_is_found(kind, known, dtype, "cpu", direct)


@given(
    kind=st.sampled_from(list(KINDS)),
    n=st.integers(41, 90),
    more=st.integers(0, 60),
    seed=st.integers(0, 99),
    share=st.floats(0.2, 1.2),
    dtype=st.sampled_from(DTYPES),
)
@settings(max_examples=40, deadline=None)
def test_what_is_found_has_the_residual_asked_for(
    kind: str, n: int, more: int, seed: int, share: float, dtype: torch.dtype
) -> None:
    """Whatever lies at the limit; a subspace that would get too large gives way to eigenpairs."""
    A, sigma = made(kind, seed, n + more, n)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(triplets, "DIRECT", 40)
        sharp = SHARP * float(np.linalg.norm(A))
        limit = (
            share * edge(n + more, n) * (1 if kind in ("spikes", "noise") else sigma[0] / edge(n + more, n))
        )
        given = torch.from_numpy(A).to(dtype)
        [found] = triplets.triplets_above(given, sought(limit, sharp), [zero(given)])
    above = found.above(limit)
    check_triplets(above, A, sigma, sharp * 1.01)
    assert above.rank <= np.sum(sigma > limit * (1 - 1e-5))


@on_kinds
@on_dtypes
def test_those_that_need_not_be_sharp_may_be_blunt(
    kind: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of seven, the three largest: in fewer products than it takes to sharpen all."""
    monkeypatch.setattr(triplets, "DIRECT", 40)
    A, sigma = made(kind)
    limit, active = ((sigma[k - 1] + sigma[k]) / 2 for k in (7, 3))
    sharp = 1e-5 * float(np.linalg.norm(A))
    given = torch.from_numpy(A).to(dtype)
    rounds = []
    for asked in (sought(limit, sharp), triplets.Sought(limit, active, sharp, 300 * sharp)):
        with mock.patch.object(triplets, "sharpened", wraps=triplets.sharpened) as sharpened:
            [found] = triplets.triplets_above(given, asked, [factors(A).truncated(2).to(dtype)])
        rounds.append(sharpened.call_count)
        U, above, V = (part.double().numpy() for part in found.above(limit))
        residual = np.linalg.norm(A @ V - U * above, axis=0)
        assert np.linalg.norm(residual[:3]) <= 1.01 * asked.sharp
        assert np.linalg.norm(residual) <= 1.01 * asked.blunt
    assert rounds[1] <= rounds[0]


@on_dtypes
def test_the_same_matrix_gives_the_same_bytes(dtype: torch.dtype, direct: int) -> None:
    A = torch.from_numpy(made("spikes")[0]).to(dtype)
    [first], [second] = (triplets.triplets_above(A, sought(20.0, 1e-3), [zero(A)]) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


@on_devices
@pytest.mark.parametrize("dtype", DTYPES)
def test_several_matrices_are_what_each_is_alone(dtype: torch.dtype, device: str) -> None:
    """Different kinds, less a common matrix, from as many triplets as happen to be known of each."""
    kinds = ("spikes", "power law", "falling", "rank one")
    matrices = [made(kind)[0] for kind in kinds]
    size = float(np.linalg.norm(matrices[0]))
    B = torch.from_numpy(np.stack([A * (size / np.linalg.norm(A)) for A in matrices])).to(device, dtype)
    z = Spanned(*(0.1 * size**0.5 * gaussian(*shape, like=B) for shape in ((170, 2), (2, 2), (150, 2))))
    starts = [zero(b) if i == 2 else exact(b).truncated(2 * i + 1) for i, b in enumerate(B)]
    limit = 0.2 * size

    found = triplets.leading_subspaces(Shifted(B, z), sought(limit, SHARP * size, True), starts)
    assert found is not None
    for b, own in zip(B, found, strict=True):
        A = (b - z.matrix()).double().cpu().numpy()
        sigma = np.linalg.svd(A, compute_uv=False)
        assert own.above(limit).rank == np.sum(sigma > limit) > 0
        check_triplets(own.above(limit), A, sigma, SHARP * size)


def exact(A: torch.Tensor) -> Factors:
    U, sigma, Vt = torch.linalg.svd(A, full_matrices=False)
    return Factors(U, sigma, Vt.T)


def test_ritz_triplets_of_an_invariant_subspace_are_the_triplets_of_the_matrix() -> None:
    A, sigma = made("falling")
    V = np.linalg.svd(A)[2][:6].T @ np.linalg.qr(np.random.default_rng(0).standard_normal((6, 6)))[0]
    check_triplets(triplets.ritz(torch.from_numpy(A), torch.from_numpy(V)), A, sigma, 1e-10)


def test_a_polynomial_leaves_the_strong_where_they_are_and_sharpens_the_rest() -> None:
    """Two spikes of ten edges, three of one and a half, from a random start: each round is nearer."""
    rng = np.random.default_rng(0)
    heights = edge(170, 150) * np.array([10.0, 10.0, 1.5, 1.5, 1.5])
    A = rng.standard_normal((170, 150)) + with_spectrum(rng, 170, 150, np.append(heights, np.zeros(145)))
    exact = np.linalg.svd(A)[2][:5].T
    given_matrix = torch.from_numpy(A)
    found = triplets.ritz(given_matrix, torch.linalg.qr(gaussian(150, 20, like=given_matrix)).Q)
    lost = []
    for _ in range(6):
        below = found.sigma[-1:]
        strong = found.above(triplets.STRONG * float(below)).rank
        V = triplets.filtered(given_matrix, found.V, [strong], below)
        np.testing.assert_allclose(V.T @ V, np.eye(V.shape[1]), atol=1e-12)
        lost.append(np.linalg.norm(exact - V.numpy() @ (V.numpy().T @ exact)))
        found = triplets.ritz(given_matrix, V)
    assert lost == sorted(lost, reverse=True)
    assert lost[-1] < 1e-3 * lost[0]


def test_widened_subspaces_hold_the_old_one() -> None:
    V = torch.linalg.qr(gaussian(30, 4, like=torch.zeros(1, dtype=torch.float64))).Q
    wide = triplets.widened(V, 9)
    assert wide.shape == (30, 9)
    np.testing.assert_allclose(wide.T @ wide, np.eye(9), atol=1e-12)
    np.testing.assert_allclose(wide @ (wide.T @ V), V, atol=1e-12)
    assert triplets.widened(V, 3) is V
