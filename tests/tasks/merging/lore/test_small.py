"""Iterates of many small problems are thresholdings, end at the minimum, and do not know of each other."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tasks.merging.lore.small import Pass, eigenpairs, passes, triplets
from tests.support.lore_curvature_reference import exact, fit
from tests.support.lore_matrices import SPECTRA, TRAJECTORIES, trajectory
from tests.support.lore_reference import Array, svt


def run(Bs: list[Array], mus: list[float], count: int) -> list[Pass]:
    """Return the first passes of some problems of one shape; all go on."""
    B, mu = torch.from_numpy(np.stack(Bs)), torch.tensor(mus, dtype=torch.float64)[:, None, None]
    steps = passes(B, eigenpairs(B), mu)
    every = torch.ones(len(Bs), dtype=torch.bool)
    return [next(steps), *(steps.send(every) for _ in range(count - 1))]


def threshold(B: Array, place: float) -> float:
    sigma = np.sort(np.linalg.svd(B, compute_uv=False).ravel())
    return float(sigma[int(place * (len(sigma) - 1))])


@pytest.mark.parametrize("kind", list(SPECTRA))
@pytest.mark.parametrize("depth", [1.9, 1.1e5])
def test_triplets_are_those_above_the_floor(kind: str, depth: float) -> None:
    """By Gram matrices, and far below the largest, where these lose digits: each matrix by its own."""
    rng = np.random.default_rng(0)
    A = np.stack([[SPECTRA[kind](rng, 30, 24) * scale for _ in range(3)] for scale in (1.0, 1e-3)])
    exactly = np.linalg.svd(A, compute_uv=False)
    floors = exactly.max(axis=(1, 2)) / np.array([depth, 1.9])
    given = torch.from_numpy(A)
    found = triplets(given, eigenpairs(given), torch.from_numpy(floors)[:, None, None])
    for k, floor in enumerate(floors):
        for matrix, sigma, own in zip(A[k], exactly[k], found.of(k, 0.0), strict=True):
            assert own.rank == np.sum(sigma > floor)
            U, s, V = (part.numpy() for part in own)
            np.testing.assert_allclose(s, sigma[: len(s)], rtol=1e-9)
            for left, right in ((matrix @ V, U * s), (matrix.T @ U, V * s)):
                np.testing.assert_allclose(left, right, atol=1e-9 * exactly[k].max())
            for side in (U, V):
                np.testing.assert_allclose(side.T @ side, np.eye(own.rank), atol=1e-7)


@pytest.mark.parametrize("N", [3, 5])
def test_task_vectors_step_and_objective_are_those_of_thresholding_at_z(N: int) -> None:
    """Also while μ comes down: then what exceeds the level is cut to the μ after it."""
    kinds = ("falling", "strong", "plateau", "deficient")
    Bs = [trajectory(kind, N, 9, 7, 0) for kind in kinds]
    mus = [threshold(B, 0.7) for B in Bs]
    for now in run(Bs, mus, 6):
        for k, (B, mu) in enumerate(zip(Bs, mus, strict=True)):
            z, level, cut = now.z[k].numpy(), float(now.level[k]), float(now.following[k])
            assert mu <= cut <= level
            deltas = [part.thresholded(cut, level).matrix().numpy() for part in now.found.of(k, 0.0)]
            if level == cut == mu:
                expected = [svt(b - z, mu) for b in B]
                np.testing.assert_allclose(deltas, expected, atol=1e-8 * np.abs(B).max())
                assert float(now.objective[k]) == pytest.approx(fit(B, z, mu), rel=1e-6)
            step = -z - np.mean(deltas, axis=0)
            np.testing.assert_allclose(now.step[k], step, atol=1e-8 * np.abs(B).max())


@example(kind="strong", N=5, seed=78, place=0.25)  # steps far too long, where all lead
@given(
    kind=st.sampled_from([kind for kind in TRAJECTORIES if kind != "drift"]),
    N=st.sampled_from([3, 5]),
    seed=st.integers(0, 99),
    place=st.floats(0.2, 0.95),
)
@settings(max_examples=15, deadline=None)
def test_they_come_within_a_thousandth_of_the_minimum_in_thirty_passes(
    kind: str, N: int, seed: int, place: float
) -> None:
    """Of μ; beside a problem that is much larger, and one that is done at once."""
    B = trajectory(kind, N, 7, 5, seed)
    mu = threshold(B, place)
    if mu < max(1e-3 * np.linalg.norm(B, 2, axis=(1, 2)).max(), 1e-9):
        return
    best = exact(B, mu)
    if best.curvature > 0.3:
        others = [1e6 * trajectory("strong", N, 7, 5, seed), trajectory("falling", N, 7, 5, 0)]
        last = run([others[0], B, others[1]], [1e6, mu, 1e3], 30)[-1]
        assert np.linalg.norm(last.z[1].numpy() - best.z) < 1e-3 * mu + best.off
        assert not last.z[2].any()


def test_those_that_leave_do_not_change_the_others() -> None:
    """But for rounding: products of another number of matrices add up in another order."""
    Bs = [trajectory(kind, 3, 8, 6, 1) for kind in ("falling", "strong", "power law", "plateau")]
    mus = [threshold(B, 0.6) for B in Bs]
    B, mu = torch.from_numpy(np.stack(Bs)), torch.tensor(mus, dtype=torch.float64)[:, None, None]
    steps = passes(B, eigenpairs(B), mu)
    now = next(steps)
    for gone in (1, 0, 2):  # each by its number among all
        now = steps.send(now.problem != gone)
    assert now.problem.tolist() == [3]
    alone = run(Bs[3:], mus[3:], 4)[-1]
    np.testing.assert_allclose(now.z[0], alone.z[0], atol=1e-6 * mus[3])
