"""A proof bounds gap and distance wherever it is given, and is refused where triplets are missing."""

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tasks.merging.lore.algebra import Factors, Spanned
from tasks.merging.lore.certificate import (
    Residuals,
    distances_from,
    if_complete,
    limit_of,
    prove,
    radius_of,
    relative_gap,
    residuals,
)
from tasks.merging.lore.converge import fit_at
from tasks.merging.lore.problem import Iterate, Near, Proof
from tests.support.lore_checks import DTYPES, on_devices
from tests.support.lore_curvature_reference import exact, hessian
from tests.support.lore_factors import CUT, factors, iterate
from tests.support.lore_matrices import TRAJECTORIES, family, trajectory
from tests.support.lore_reference import Array, dual, minimise, noise_edge, primal, svt


def proof(B: Array, here: Iterate, tolerance: float | Near = 1e-4) -> Proof | None:
    given = torch.from_numpy(B).to(here.z.core.dtype)
    return prove(given, float(np.sum(B**2)), here, fit_at(here, tolerance).bound, residuals(given, here))


def optimum(shape: tuple[int, int] = (20, 14)) -> tuple[Array, Array, float]:
    B, mu = family("spikes", 3, *shape, 0), 8.0
    return B, minimise(B, mu, gap=1e-13).z, mu


# as many steps of Lanczos as there are directions, and rounding hid the flattest
@example("plateau", 4, 3, 3, 63, 0.0, 1.1, 3, -2.91, 0.4, 0.03)
@example("drift", 6, 3, 2, 85, 0.0, 1 - 1e-6, 0, -1.85, 0.7, 0.03)
@given(
    kind=st.sampled_from(list(TRAJECTORIES)),
    N=st.integers(3, 6),
    m=st.integers(1, 6),
    n=st.integers(1, 6),
    seed=st.integers(0, 99),
    place=st.floats(0, 1),
    factor=st.sampled_from([1.0, 1 + 1e-6, 1 - 1e-6, 0.9, 1.1, 0.5]),
    direction=st.integers(0, 4),
    away=st.floats(-4, 0.3),
    cut=st.sampled_from([CUT, 0.7, 0.4]),
    near=st.sampled_from([math.inf, 0.03, 0.003]),
)
@settings(max_examples=80, deadline=None)
def test_gap_and_distance_are_upper_bounds_at_any_distance_in_any_direction(
    kind: str,
    N: int,
    m: int,
    n: int,
    seed: int,
    place: float,
    factor: float,
    direction: int,
    away: float,
    cut: float,
    near: float,
) -> None:
    """Along the flattest, the steepest and other directions, from z* to beyond where a proof is possible."""
    m, n = max(m, n), min(m, n)
    B = trajectory(kind, N, m, n, seed)
    sigma = np.sort(np.linalg.svd(B, compute_uv=False).ravel())
    mu = factor * float(sigma[int(place * (len(sigma) - 1))])
    if mu < max(1e-4 * sigma[-1], 1e-9):
        return
    best = exact(B, mu)
    vectors = np.linalg.eigh(hessian(B, best.z, mu))[1]
    rng = np.random.default_rng(seed)
    X = [
        vectors[:, 0].reshape(m, n),
        vectors[:, min(1, m * n - 1)].reshape(m, n),
        vectors[:, -1].reshape(m, n),
        rng.standard_normal((m, n)),
        np.outer(rng.standard_normal(m), rng.standard_normal(n)),
    ][direction]
    z = best.z + (1 - cut) / 2.4 * mu * 10**away * X / np.linalg.norm(X)
    here = iterate(B, z, mu, cut=cut)
    found = proof(B, here, Near(near * mu))
    assert found is not None  # no triplet is missing
    assert found.error >= np.linalg.norm(z - best.z) - best.off
    if math.isfinite(
        found.error
    ):  # the minimum is within reach: it curves no less, and the reference is not off
        assert found.curvature is not None
        assert found.curvature <= best.curvature + 1e-6 * N
    deltas, best_deltas = (np.stack([svt(b - at, mu) for b in B]) for at in (z, best.z))
    value = primal(B, deltas, mu)
    assert value - primal(B, best_deltas, mu) <= (found.gap + 1e-13) * value


@pytest.mark.parametrize("N", [4, 6])
@pytest.mark.parametrize("height", [1.2, 3.0, 100.0])
def test_of_a_flat_minimum_no_distance_is_proven(N: int, height: float) -> None:
    """Every z between the two checkpoints in the middle, less μ, is a minimiser."""
    D = np.outer(np.eye(7)[0], np.eye(5)[0])
    B = np.stack([t * D for t in np.linspace(-1, 1, N)]) * height * (N - 1)
    one, other = (iterate(B, t * (height - 1) * D, 1.0) for t in (0.0, 0.9))
    for here in (one, other):
        found = proof(B, here)
        assert found is not None
        assert found.gap < 1e-11  # both are at the minimum
        assert math.isinf(found.error)


@on_devices
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(20, 14), (14, 14)])
def test_the_optimum_is_proven_almost_to_rounding(
    shape: tuple[int, int], dtype: torch.dtype, device: str
) -> None:
    B, z, mu = optimum(shape)
    here = iterate(B, z, mu, dtype)
    given = torch.from_numpy(B).to(device, dtype)
    moved = here._replace(
        z=Spanned(*(one.to(device) for one in here.z[:3])),
        leading=[Factors(*(one.to(device) for one in part)) for part in here.leading],
        deltas=[Factors(*(one.to(device) for one in part)) for part in here.deltas],
    )
    found = prove(given, float(np.sum(B**2)), moved, fit_at(moved, 1e-4).bound, residuals(given, moved))
    assert found is not None
    eps = torch.finfo(dtype).eps
    assert found.gap <= max(1e4 * eps, 1e-7)
    assert found.error <= max(1e3 * eps, 1e-5) * np.linalg.norm(B)


@pytest.mark.parametrize("which", [0, 1, -1])
def test_one_triplet_left_out_is_refused(which: int) -> None:
    """Even the weakest active one, which nobody would see in the objective."""
    B, z, mu = optimum()
    here = iterate(B, z, mu)
    active = here.deltas[0].rank
    kept = [j for j in range(here.leading[0].rank) if j != which % active]
    first = here.leading[0]
    fewer = Factors(first.U[:, kept], first.sigma[kept], first.V[:, kept])
    assert proof(B, here) is not None
    assert proof(B, here._replace(leading=[fewer, *here.leading[1:]])) is None


def test_residuals_take_of_how_far_a_distance_is_told() -> None:
    B, z, mu = optimum()
    here = iterate(B, z, mu)
    sharp = fit_at(here, 1e-4).bound
    for most, told in ((0.5 * sharp.within, True), (sharp.within, False)):
        found = if_complete(float(np.sum(B**2)), here, sharp, Residuals([0.0] * 3, [most, 0.0, 0.0]))
        assert math.isfinite(found.error) == told


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_triplets_of_another_matrix_are_refused_or_pay_for_it(factor: float) -> None:
    B, z, mu = optimum()
    here = iterate(B, z, mu)
    wrong = [part._replace(sigma=factor * part.sigma) for part in here.leading]
    assert proof(B, here._replace(leading=wrong)) is None


@given(kind=st.sampled_from(list(TRAJECTORIES)), seed=st.integers(0, 99), angle=st.floats(-6, -1))
@settings(max_examples=60, deadline=None)
def test_triplets_below_the_threshold_may_be_off_by_more(kind: str, seed: int, angle: float) -> None:
    """The task vectors depend on no others than those above it: only these count where the slope is known by them."""
    B = trajectory(kind, 4, 9, 7, seed)
    sigma = np.sort(np.linalg.svd(B, compute_uv=False).ravel())
    mu = float(sigma[-9])
    if mu < 1e-4 * sigma[-1]:
        return
    best = exact(B, mu)
    here = iterate(B, best.z, mu, cut=0.4)
    rng, leading = np.random.default_rng(seed), []
    for part in here.leading:
        k = part.above(mu - radius_of(here)).rank
        V = part.V.clone()
        V[:, k:] += 10**angle * torch.from_numpy(rng.standard_normal((7, part.rank - k)))
        leading.append(part._replace(V=torch.linalg.qr(V).Q * torch.linalg.qr(V).R.diagonal().sign()))
    turned = here._replace(leading=leading)
    wrong = [part._replace(sigma=(1 + 10**angle) * part.sigma) for part in here.leading]
    found = residuals(torch.from_numpy(B), here._replace(leading=wrong)).active
    for own, part, exactly in zip(found, wrong, here.leading, strict=True):
        active = exactly.sigma[: part.above(mu - radius_of(here)).rank]
        assert own == pytest.approx(2**0.5 * 10**angle * float(active.norm()), rel=0.01, abs=1e-9)
    left = residuals(torch.from_numpy(B), turned)
    assert sum(left.active) < 1e-9 * np.linalg.norm(B)
    proven = proof(B, turned)
    assert proven is None or proven.error >= np.linalg.norm(turned.z.matrix().numpy() - best.z) - best.off
    off = [
        np.linalg.norm(one.V - other.V) * float(one.sigma[-1])
        for one, other in zip(here.leading, leading, strict=True)
        if one.rank
    ]
    assert max(left.all) >= 0.1 * max(off, default=0.0)


@given(seed=st.integers(0, 99), size=st.floats(-6, 0))
@settings(max_examples=30, deadline=None)
def test_a_matrix_is_as_far_as_claimed_from_one_that_has_its_triplets(seed: int, size: float) -> None:
    """That matrix, constructed: the triplets, and A in the complements of their spaces."""
    rng = np.random.default_rng(seed)
    A = family("spikes", 3, 12, 9, seed)[0]
    found = factors(A + 10**size * rng.standard_normal((12, 9))).truncated(3)
    U, sigma, V = (part.numpy() for part in found)
    outside = (np.eye(12) - U @ U.T) @ A @ (np.eye(9) - V @ V.T)
    closest = (U * sigma) @ V.T + outside
    [distance] = distances_from(torch.from_numpy(A), found, [3], float(np.linalg.norm(A)))
    assert np.linalg.norm(A - closest) <= distance
    assert distance <= 2 * np.linalg.norm(A - closest) + 1e-12 * np.linalg.norm(A)


@given(N=st.integers(3, 5), seed=st.integers(0, 99), share=st.floats(0.3, 1.2), shift=st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_the_gap_reaches_down_to_a_dual_value(N: int, seed: int, share: float, shift: float) -> None:
    """At any z, near the minimum or not: never above the value that a feasible point proves."""
    B = family("spikes", N, 9, 7, seed)
    mu = share * noise_edge(B)
    z = shift * np.random.default_rng(seed).standard_normal((9, 7))
    here = iterate(B, z, mu)
    deltas = np.stack([svt(b - z, mu) for b in B])
    residuals = B - z - deltas
    value = 0.5 * np.sum((residuals + z + deltas.mean(axis=0)) ** 2) + mu * sum(
        np.linalg.norm(d, "nuc") for d in deltas
    )
    proven = value - dual(B, deltas, mu)
    found = relative_gap(here, float(np.sum(B**2)), [0.0] * N)
    assert found * value >= proven - 1e-9 * value
    assert found * value >= value - minimise(B, mu, gap=1e-9).primal - 1e-9 * value


def test_limits_lie_between_the_cut_and_the_threshold() -> None:
    B, z, mu = optimum()
    here = iterate(B, z, mu)
    assert CUT * mu < limit_of(here) < limit_of(here) + radius_of(here) < mu
