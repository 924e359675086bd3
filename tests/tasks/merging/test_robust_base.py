"""LoRE against an independent float64 computation, and the identities of methods.md § 2."""

import itertools
import math

import lore_reference as reference
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.merging import robust_base
from tasks.merging.robust_base import NotConverged, deviations, minimise, solve
from tasks.merging.svt import noise_edge, svt

TOLERANCE = 1e-9


def family(N: int, m: int = 14, n: int = 10, seed: int = 0) -> list[torch.Tensor]:
    """N matrices around a base: two spikes each, over noise."""
    rng = np.random.default_rng(seed)
    base = rng.standard_normal((m, n))

    def one() -> torch.Tensor:
        spikes = rng.standard_normal((m, 2)) @ rng.standard_normal((2, n)) / 2
        return torch.from_numpy(base + 0.1 * rng.standard_normal((m, n)) + spikes)

    return [one() for _ in range(N)]


def run(thetas: list[torch.Tensor], mu: float, **options: object) -> robust_base.Solution:
    settings = {"mu_scale": "absolute", "rank_ratio": 1.0, "anchor": None, "tolerance": TOLERANCE, **options}
    return solve(thetas, mu, **settings)


def arrays(thetas: list[torch.Tensor]) -> list[np.ndarray]:
    return [theta.numpy() for theta in thetas]


@pytest.mark.parametrize("N", [2, 3, 5])
@pytest.mark.parametrize("mu", [0.05, 0.5, 2.0])
@pytest.mark.parametrize(("m", "n"), [(14, 10), (6, 17), (9, 1)])
def test_the_solution_equals_plain_descent_with_full_svds(N: int, mu: float, m: int, n: int) -> None:
    thetas = family(N, m, n)
    _, total = reference.solve(arrays(thetas), mu)
    np.testing.assert_allclose(
        run(thetas, mu).total.numpy(), total, atol=1e-3 * max(np.linalg.norm(total), 1e-6)
    )


@given(
    N=st.integers(3, 7),
    m=st.integers(1, 12),
    n=st.integers(1, 12),
    mu=st.floats(0.1, 3),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_the_certificate_bounds_the_true_distance_to_the_minimum(
    N: int, m: int, n: int, mu: float, seed: int
) -> None:
    """A loose solution's objective, at its refreshed θ_0, is within its gap of a far better one's."""
    thetas = [theta if m >= n else theta.T for theta in family(N, m, n, seed)]
    B = deviations(thetas)
    z, _, gap = minimise(B, mu, 1e-2)
    best, _, _ = minimise(B, mu, 1e-10)
    mean = torch.stack(thetas).mean(0)
    refreshed = torch.stack([b - svt(b - z, mu).matrix for b in B]).mean(0)
    here, there = (reference.objective(arrays(thetas), (mean + at).numpy(), mu) for at in (refreshed, best))
    assert here - there <= gap * here + 1e-9 * max(here, 1)


@pytest.mark.parametrize("N", [3, 5])
def test_the_fixed_point_is_a_spectral_huber_location(N: int) -> None:
    """Σ Clip_μ(θ_i − θ_0) = 0, so S = N (mean − θ_0)."""
    thetas, mu = family(N), 0.5
    z, _, _ = minimise(deviations(thetas), mu, 1e-13)
    clips = [b - z - svt(b - z, mu).matrix for b in deviations(thetas)]
    assert float(torch.stack(clips).sum(0).norm()) < 1e-5
    torch.testing.assert_close(run(thetas, mu, tolerance=1e-13).total, -N * z, atol=1e-5, rtol=0)


@pytest.mark.parametrize("mu", [0.01, 1.0])
def test_two_checkpoints_from_the_mean_cancel(mu: float) -> None:
    solution = run(family(2), mu)
    assert not solution.total.any()
    assert solution.passes == 0
    _, total = reference.solve(arrays(family(2)), mu, passes=10)
    np.testing.assert_allclose(total, 0, atol=1e-12)


@pytest.mark.parametrize("anchor", [0, 1])
def test_two_checkpoints_anchored_have_a_closed_form(anchor: int) -> None:
    """δ_other = SVT(θ_other − θ_anchor; 2μ), δ_anchor = 0: also what descent from that start reaches."""
    thetas, mu = family(2), 0.4
    solution = run(thetas, mu, anchor=anchor)
    other = arrays(thetas)[1 - anchor] - arrays(thetas)[anchor]
    np.testing.assert_allclose(solution.total.numpy(), reference.svt(other, 2 * mu), atol=1e-9)
    theta_0 = arrays(thetas)[anchor]
    for _ in range(20_000):
        deltas = [reference.svt(theta - theta_0, mu) for theta in arrays(thetas)]
        theta_0 = np.mean([t - d for t, d in zip(arrays(thetas), deltas, strict=True)], axis=0)
    np.testing.assert_allclose(solution.total.numpy(), sum(deltas), atol=1e-3)


def test_the_anchor_changes_nothing_for_three() -> None:
    thetas = family(3)
    torch.testing.assert_close(run(thetas, 0.4, anchor=1).total, run(thetas, 0.4).total)


def test_the_order_of_checkpoints_does_not_matter() -> None:
    thetas = family(4)
    totals = [run([thetas[i] for i in order], 0.4).total for order in itertools.permutations(range(4))]
    for total in totals:
        torch.testing.assert_close(total, totals[0], atol=1e-4, rtol=0)


def test_the_problem_is_odd_and_moves_with_its_data() -> None:
    thetas, shift = family(3), torch.ones(14, 10, dtype=torch.float64)
    total = run(thetas, 0.4).total
    torch.testing.assert_close(run([-theta for theta in thetas], 0.4).total, -total)
    torch.testing.assert_close(run([theta + shift for theta in thetas], 0.4).total, total, atol=1e-6, rtol=0)
    torch.testing.assert_close(run([3 * theta for theta in thetas], 1.2).total, 3 * total, atol=1e-6, rtol=0)


def test_a_large_threshold_leaves_the_mean_and_a_small_one_everything() -> None:
    thetas = family(3)
    assert not run(thetas, 1e3).total.any()
    assert run(thetas, 0.02, tolerance=1e-4).share > 0.3


def test_relative_scales_are_what_they_say() -> None:
    thetas = family(5)
    B = deviations(thetas)
    sigma1 = max(np.linalg.norm(b.numpy(), 2) for b in B)
    assert run(thetas, 0.3, mu_scale="sigma1").mu == pytest.approx(0.3 * sigma1)
    assert run(thetas, 1.5, mu_scale="noise_edge").mu == pytest.approx(1.5 * noise_edge(B))


def test_truncation_cuts_each_task_vector_and_refreshes_the_base() -> None:
    thetas, mu = family(3), 0.05
    _, total = reference.solve(arrays(thetas), mu, rank=2)
    solution = run(thetas, mu, rank_ratio=0.2)
    assert solution.ranks == [2, 2, 2]
    np.testing.assert_allclose(solution.total.numpy(), total, atol=1e-3 * np.linalg.norm(total))


@pytest.mark.parametrize("scale", ["absolute", "sigma1", "noise_edge"])
def test_identical_checkpoints_have_nothing_to_separate(scale: str) -> None:
    solution = run([family(1)[0]] * 3, 1.0, mu_scale=scale)
    assert not solution.total.any()


@pytest.mark.parametrize("scale", ["sigma1", "noise_edge"])
def test_exactly_low_rank_deviations_and_one_huge_outlier_are_solved(scale: str) -> None:
    low_rank = [torch.outer(torch.arange(8.0).double() + i, torch.ones(5).double()) for i in range(3)]
    outlier = family(3)
    outlier[1][3, 4] = 1e6
    for thetas in (low_rank, outlier):
        solution = run(thetas, 1.0, mu_scale=scale, tolerance=1e-6)
        assert solution.gap <= 1e-6
        assert bool(torch.isfinite(solution.total).all())


def test_what_does_not_converge_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(robust_base, "MAX_PASSES", 2)
    with pytest.raises(NotConverged, match="relative duality gap .* after 2 passes"):
        run(family(3), 0.1)


def test_nothing_is_measured_where_nothing_was_solved() -> None:
    assert math.isnan(run(family(2), 1.0).mu)
