"""What many small problems give together is proven, true, and what each gives alone."""

import math
from collections.abc import Iterator
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.merging.lore import together
from tasks.merging.lore.certificate import Residuals, if_complete, radius_of
from tasks.merging.lore.lanczos import Bounds
from tasks.merging.lore.penalty import Scale
from tasks.merging.lore.problem import GAP_INSTEAD, Iterate, Near, Proof, Sharpness
from tasks.merging.lore.small import Pass, Triplets
from tasks.merging.lore.solve import solve
from tasks.merging.lore.together import Small, solve_together
from tests.support.lore_checks import ignore, matrices
from tests.support.lore_curvature_reference import exact, hessian
from tests.support.lore_matrices import TRAJECTORIES, trajectory
from tests.support.lore_reference import Array, dual, minimise, primal

KINDS = [kind for kind in TRAJECTORIES if kind != "drift"]


def small(B: Array, mu: float, share: float) -> Small:
    """Ask for θ_0 within a share of how far the checkpoints lie apart."""
    distance = share * float(np.linalg.norm(B)) / len(B) ** 0.5
    return Small(torch.from_numpy(B), Scale(mu, "absolute", "nuclear", B.shape[1:]), Near(distance))  # type: ignore[arg-type]


def threshold(B: Array, place: float) -> float:
    sigma = np.sort(np.linalg.svd(B, compute_uv=False).ravel())
    return max(float(sigma[int(place * (len(sigma) - 1))]), 2e-3 * float(sigma[-1]))


@given(
    kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=4),
    shapes=st.lists(st.tuples(st.integers(2, 8), st.integers(2, 8)), min_size=4, max_size=4),
    N=st.integers(3, 5),
    seed=st.integers(0, 99),
    place=st.floats(0.2, 0.95),
    share=st.sampled_from([0.1, 1 / 256, 1e-5]),
)
@settings(max_examples=25, deadline=None)
def test_what_is_proven_is_true(
    kinds: list[str], shapes: list[tuple[int, int]], N: int, seed: int, place: float, share: float
) -> None:
    """Of matrices of any shapes beside each other, broad ones, too."""
    Bs = [trajectory(kind, N, *shape, seed) for kind, shape in zip(kinds, shapes, strict=False)]
    asked = [small(B, threshold(B, place), share) for B in Bs]
    for problem, B, found in zip(asked, Bs, solve_together(asked, ignore), strict=True):
        if found is None:
            continue  # `solve` is asked then
        best, deltas = exact(B, problem.scale.mu), matrices(found)
        assert deltas.shape == B.shape
        assert (
            1 - dual(B, deltas, found.penalty.mu) / primal(B, deltas, found.penalty.mu) <= found.gap + 1e-12
        )
        if math.isinf(found.error):  # hardly unique
            assert found.gap <= GAP_INSTEAD
            continue
        assert found.error <= problem.goal.distance
        assert np.linalg.norm(deltas.mean(axis=0) + best.z) <= found.error + best.off


@pytest.mark.parametrize("kind", KINDS)
def test_most_are_solved_and_are_what_solve_finds(kind: str) -> None:
    """At the scale that is the default, with all that a solution tells of the problem."""
    asked = []
    for seed in range(6):
        B = trajectory(kind, 5, 30, 24, seed)
        asked.append(small(B, 1.05, 1 / 256)._replace(scale=Scale(1.05, "auto", "nuclear", (30, 24))))
    found = solve_together(asked, ignore)
    assert sum(own is not None for own in found) >= 5
    for problem, own in zip(asked, found, strict=True):
        if own is None:
            continue
        alone = solve(problem.B, problem.scale, problem.goal)
        assert own.penalty.mu == pytest.approx(alone.penalty.mu, rel=1e-9)
        assert own.edge == pytest.approx(alone.edge, rel=1e-9)
        assert own.thresholds == [own.penalty.mu] * 5
        S, other = (matrices(one).sum(axis=0) for one in (own, alone))
        assert np.linalg.norm(S - other) <= 2 * 5 * problem.goal.distance
        best = minimise(problem.B.numpy(), own.penalty.mu)
        assert np.linalg.norm(S / 5 + best.z) <= problem.goal.distance
        for spectrum, b in zip(own.spectra, problem.B.numpy() - best.z, strict=True):
            exactly = np.linalg.svd(b, compute_uv=False)[: len(spectrum)]
            np.testing.assert_allclose(spectrum, exactly, atol=2 * problem.goal.distance)


@pytest.mark.parametrize("N", [4, 6])
def test_of_a_flat_minimum_the_gap_is_proven_instead(N: int) -> None:
    """And it does not keep those beside it."""
    D = np.outer(np.eye(9)[0], np.eye(7)[0])
    noise = 0.01 * trajectory("twins", N, 9, 7, 0)
    B = np.stack([30 * t * D for t in np.linspace(-1, 1, N)]) + noise - noise.mean(axis=0)
    sharp = trajectory("falling", N, 9, 7, 0)
    flat, other = solve_together(
        [small(B, 2.0, 1 / 256), small(sharp, threshold(sharp, 0.7), 1 / 256)], ignore
    )
    assert flat is not None
    assert other is not None
    assert math.isinf(flat.error)
    assert flat.gap <= GAP_INSTEAD
    assert 1 - dual(B, matrices(flat), 2.0) / primal(B, matrices(flat), 2.0) <= flat.gap + 1e-13
    assert math.isfinite(other.error)


def test_a_triplet_that_is_missing_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the last of those above μ the curvature seems larger, and the slope another."""
    B = trajectory("falling", 3, 9, 7, 0)
    asked = [small(B, threshold(B, 0.6), 1 / 256)]
    assert solve_together(asked, ignore) != [None]
    proven = together._proven

    def with_one_less(now: Pass, *given: object) -> object:
        U, sigma, V, spectra = now.found
        kept = torch.ones_like(sigma)
        kept[:, 0, int((sigma[0, 0] > now.level[0, 0]).sum()) - 1 :] = 0
        lost = Triplets(U * kept[..., None, :], sigma * kept, V * kept[..., None, :], spectra)
        return proven(now._replace(found=lost), *given)  # type: ignore[arg-type]

    monkeypatch.setattr(together, "_proven", with_one_less)
    assert solve_together(asked, ignore) == [None]


def test_triplets_that_are_not_a_matrix_s_own_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    B = trajectory("falling", 3, 9, 7, 0)
    proven = together._proven

    def turned(now: Pass, *given: object) -> object:
        found = now.found._replace(U=now.found.U.roll(1, -2))
        return proven(now._replace(found=found), *given)  # type: ignore[arg-type]

    monkeypatch.setattr(together, "_proven", turned)
    assert solve_together([small(B, threshold(B, 0.6), 1 / 256)], ignore) == [None]


def test_passes_are_told_before_they_are_made_and_an_exception_ends_them() -> None:
    B = trajectory("strong", 3, 9, 7, 0)
    asked, told = [small(B, threshold(B, 0.5), 1 / 256)], list[int]()
    [found] = solve_together(asked, told.append)
    assert found is not None
    assert told == list(range(1, found.passes + 1))

    def stop(number: int) -> None:
        if number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        solve_together(asked, stop)


def test_equal_problems_give_equal_bytes() -> None:
    Bs = [trajectory(kind, 3, 9, 7, 0) for kind in ("falling", "strong", "plateau")]
    asked = [small(B, threshold(B, 0.6), 1 / 256) for B in Bs]
    for one, other in zip(*(solve_together(asked, ignore) for _ in range(2)), strict=True):
        assert one is not None
        assert other is not None
        for delta, same in zip(one.deltas, other.deltas, strict=True):
            assert all(torch.equal(*pair) for pair in zip(delta, same, strict=True))


@given(kind=st.sampled_from(KINDS), N=st.integers(3, 5), seed=st.integers(0, 99), place=st.floats(0.3, 0.95))
@settings(max_examples=20, deadline=None)
def test_the_curvature_that_is_used_is_that_of_a_smaller_threshold_or_less(
    kind: str, N: int, seed: int, place: float
) -> None:
    """What comes to lead on the way to the minimiser leads there already."""
    B = trajectory(kind, N, 7, 6, seed)
    asked, used = small(B, threshold(B, place), 0.1), list[tuple[Iterate, Sharpness]]()

    def noted(total: float, here: Iterate, sharp: Sharpness, left: Residuals) -> Proof:
        used.append((here, sharp))
        return if_complete(total, here, sharp, left)

    with mock.patch.object(together, "if_complete", noted):
        solve_together([asked], ignore)
    for here, sharp in used:
        reached = min(radius_of(here), asked.goal.distance)
        assert sharp.within >= reached
        lowest = np.linalg.eigvalsh(hessian(B, here.z.matrix().numpy(), here.mu - reached))[0]
        assert sharp.curvature <= max(lowest, 0) + 1e-6 * N


def test_an_estimate_of_the_curvature_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def hopeful(*given: object) -> Iterator[list[Bounds]]:
        yield [Bounds(10, 0.5, 0.0, exhausted=True)]

    B = trajectory("falling", 3, 9, 7, 0)
    monkeypatch.setattr(together, "looks", hopeful)
    [found] = solve_together([small(B, threshold(B, 0.6), 1 / 256)], ignore)
    assert found is None or (math.isinf(found.error) and found.gap <= GAP_INSTEAD)
