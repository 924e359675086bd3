"""The largest singular triplets are those of numpy, from Krylov spaces and from eigenpairs."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.merging.lore import krylov, spectrum
from tasks.merging.lore.algebra import Factors, each, energy
from tasks.merging.lore.krylov import Largest
from tests.support.lore_checks import DTYPES, as_on_a_gpu, on_devices
from tests.support.lore_triplets import KINDS, check_triplets, made

on_kinds = pytest.mark.parametrize("kind", KINDS)
on_dtypes = pytest.mark.parametrize("dtype", DTYPES)


def largest(A: torch.Tensor, sought: Largest) -> list[Factors]:
    return spectrum.largest(A, [energy(own[None]) for own in each(A)], sought)


@pytest.fixture(params=[40, 1000], ids=["space", "eigenpairs"])
def direct(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(spectrum, "DIRECT", request.param)
    monkeypatch.setattr(krylov, "BLOCK", 4)
    monkeypatch.setattr(krylov, "LARGEST_SPACE", 1)
    return int(request.param)


@on_devices
@on_dtypes
@on_kinds
def test_the_largest_are_those_of_numpy(kind: str, dtype: torch.dtype, device: str, direct: int) -> None:
    """As many as asked for; those at the end, among many as large, only about as large."""
    A, sigma = made(kind)
    for count in (1, 5, 15):
        [found] = largest(torch.from_numpy(A).to(device, dtype), Largest(count, 0.02))
        assert found.rank == count
        assert found.U.dtype == dtype
        s = found.sigma.double().cpu().numpy()
        assert np.all(s <= sigma[:count] * (1 + 1e-5) + 1e-5 * sigma[0])  # Ritz values never exceed
        np.testing.assert_allclose(s, sigma[:count], rtol=0.05, atol=1e-3 * sigma[0])
        clear = found.above(krylov.CLEAR * float(s[-1]))
        check_triplets(clear, A, sigma, max(0.02 * float(s[-1]), 1e-5 * sigma[0]))


@on_dtypes
@on_kinds
def test_the_way_of_a_gpu_finds_them_too(kind: str, dtype: torch.dtype, direct: int) -> None:
    with as_on_a_gpu(), pytest.MonkeyPatch.context() as patched:
        patched.setattr(krylov, "BLOCK_ON_GPU", 4)
        test_the_largest_are_those_of_numpy(kind, dtype, "cpu", direct)


@on_dtypes
@on_kinds
@pytest.mark.parametrize("expected", [None, 2, 12])
def test_below_a_floor_one_is_enough(
    kind: str, expected: int | None, dtype: torch.dtype, direct: int
) -> None:
    """However many were expected above it: that one tells that no more are."""
    A, sigma = made(kind)
    for above in (0, 3, 15):
        floor = float(sigma[above - 1] + sigma[above]) / 2 if above else 1.1 * float(sigma[0])
        if above and sigma[above - 1] - sigma[above] < 1e-3 * sigma[0]:
            continue  # a plateau: which of its values exceed the floor is rounding
        sought = Largest(12, 0.02, floor=floor, expected=expected)
        [found] = largest(torch.from_numpy(A).to(dtype), sought)
        least = np.sum(sigma > 1.06 * floor)  # the last ones, among many as large, may be a little too small
        assert min(least + 1, 12) <= found.rank <= min(above + 1, 12)
        clear = found.above(max(krylov.CLEAR * float(found.sigma[-1]), floor))
        check_triplets(clear, A, sigma, max(0.02 * float(sigma[above]), 1e-5 * sigma[0]))


@given(
    kind=st.sampled_from(list(KINDS)),
    n=st.integers(41, 120),
    more=st.integers(0, 60),
    seed=st.integers(0, 99),
    share=st.floats(0.01, 0.12),
    block=st.integers(1, 9),
    dtype=st.sampled_from(DTYPES),
)
@settings(max_examples=60, deadline=None)
def test_the_last_is_as_close_as_asked(
    kind: str, n: int, more: int, seed: int, share: float, block: int, dtype: torch.dtype
) -> None:
    """Where that is asked of it: its residual bounds how far a singular value of the matrix is from it."""
    A, sigma = made(kind, seed, n + more, n)
    asked = []

    def close(own: np.ndarray, size: float) -> float:
        asked.append(size)
        return 1e-3

    with pytest.MonkeyPatch.context() as patched:
        for module, name, value in (
            (spectrum, "DIRECT", 40),
            (krylov, "BLOCK", block),
            (krylov, "LARGEST_SPACE", 1),
        ):
            patched.setattr(module, name, value)
        given_matrix = torch.from_numpy(A).to(dtype)
        [found] = largest(given_matrix, Largest(math.ceil(share * n), 0.02, close))
    last = float(found.sigma[-1])
    assert np.min(np.abs(sigma - last)) <= 1e-3 * last + 1e-5 * sigma[0]
    assert last <= sigma[found.rank - 1] + 1e-5 * sigma[0]
    assert all(size == pytest.approx(energy(given_matrix[None])) for size in asked)


def test_of_many_rows_for_each_column_the_gram_matrix_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A space would have long columns, and the Gram matrix is small."""
    monkeypatch.setattr(spectrum, "DIRECT", 30)
    A = np.random.default_rng(0).standard_normal((24 * 64, 64)) * np.arange(1, 65) ** -0.5
    sigma = np.linalg.svd(A, compute_uv=False)
    spaces = []
    monkeypatch.setattr(spectrum, "in_krylov_space", lambda *given: spaces.append(given))
    [found] = largest(torch.from_numpy(A), Largest(5, 0.7))
    check_triplets(found, A, sigma, 1e-9 * float(sigma[0]))
    assert not spaces
    largest(torch.from_numpy(A[:-1]), Largest(5, 0.7))
    assert spaces


@pytest.mark.parametrize("seed", range(3))
def test_a_spike_little_above_noise_is_found_before_noise_is_taken_for_all_else(seed: int) -> None:
    """After so few blocks it is not sharp; that it is there has to be seen."""
    rng, (m, n) = np.random.default_rng(seed), (400, 360)
    edge = m**0.5 + n**0.5
    u, v = (x / np.linalg.norm(x) for x in (rng.standard_normal(m), rng.standard_normal(n)))
    A = torch.from_numpy(rng.standard_normal((m, n)) + 1.25 * edge * np.outer(u, v))
    found = krylov.in_krylov_space(A, [energy(A[None])], Largest(60, 0.7, noise=lambda sigma, square: edge))
    assert found is not None
    assert found[0].rank == 2
    assert float(found[0].sigma[0]) == pytest.approx(float(torch.linalg.matrix_norm(A, 2)), rel=0.01)


@on_dtypes
@pytest.mark.parametrize("rank", [0, 1, 7])
@pytest.mark.parametrize("block", [4, 16])
def test_a_space_that_holds_all_there_is_stays_orthonormal(
    rank: int, block: int, dtype: torch.dtype, direct: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of matrices whose rank, and whose number of rows that are not zero, are smaller than a block."""
    monkeypatch.setattr(krylov, "BLOCK", block)
    rng = np.random.default_rng(0)
    A = np.zeros((170, 150))
    A[:rank] = rng.standard_normal((rank, 150))
    sigma = np.linalg.svd(A, compute_uv=False)
    [found] = largest(torch.from_numpy(A).to(dtype), Largest(12, 0.02))
    assert found.rank > rank
    size = max(float(sigma[0]), 1e-9)
    check_triplets(found.truncated(rank), A, sigma, 1e-5 * size)
    assert float(found.sigma[rank:].max()) <= 1e-5 * size
    if direct == 40:  # eigenpairs give no left vectors of what is zero
        for part in (found.U, found.V):
            np.testing.assert_allclose(part.T @ part, np.eye(found.rank), atol=2e-5)


@on_dtypes
def test_several_matrices_share_a_space_and_each_finds_its_own(dtype: torch.dtype, direct: int) -> None:
    kinds = list(KINDS)
    A = np.stack([made(kind)[0] for kind in kinds])
    found = largest(torch.from_numpy(A).to(dtype), Largest(5, 0.02))
    for own, kind in zip(found, kinds, strict=True):
        matrix, sigma = made(kind)
        assert own.rank == 5
        clear = own.above(krylov.CLEAR * float(own.sigma[-1]))
        check_triplets(clear, matrix, sigma, max(0.02 * float(own.sigma[-1]), 1e-5 * sigma[0]))


def test_the_same_matrix_gives_the_same_bytes(direct: int) -> None:
    A = torch.from_numpy(made("spikes")[0])
    [first], [second] = (largest(A, Largest(9, 0.02)) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_more_than_there_are_columns_are_all() -> None:
    A, sigma = made("noise", m=9, n=5)
    [found] = largest(torch.from_numpy(A), Largest(12, 1e-9))
    check_triplets(found, A, sigma, 1e-9)
    assert found.rank == 5
