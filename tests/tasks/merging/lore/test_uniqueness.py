"""The bound is never above the smallest eigenvalue of the Hessian."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.merging.lore.certificate import distance
from tasks.merging.lore.curvature import Curvature, coarse, in_bases, joint
from tasks.merging.lore.problem import FLAT
from tasks.merging.lore.uniqueness import ENOUGH, SLIP, Fit, Slope
from tests.support.lore_checks import on_devices
from tests.support.lore_curvature_reference import hessian
from tests.support.lore_factors import factors, spanned
from tests.support.lore_matrices import TRAJECTORIES, trajectory
from tests.support.lore_reference import Array, minimise


def bound(B: Array, mu: float, rest: float, dtype: torch.dtype = torch.float64, device: str = "cpu") -> float:
    """Return the bound at z = 0, nothing known of what is below `rest`."""
    found = [factors(b).above(rest).to(dtype) for b in B]
    return Fit(
        [type(part)(*(one.to(device) for one in part)) for part in found], mu, 0.0, rest
    ).bound.curvature


def slope_of(r: Array) -> Slope:
    given = torch.from_numpy(r.copy())
    return Slope(float(given.norm()), spanned(given))


@given(
    kind=st.sampled_from(list(TRAJECTORIES)),
    N=st.integers(3, 6),
    m=st.integers(1, 8),
    n=st.integers(1, 8),
    seed=st.integers(0, 99),
    place=st.floats(0, 1),
    below=st.floats(0.3, 0.95),
)
@settings(max_examples=60, deadline=None)
def test_it_is_a_lower_bound_on_the_hessian_s_smallest_eigenvalue(
    kind: str, N: int, m: int, n: int, seed: int, place: float, below: float
) -> None:
    """Assembled in full; μ anywhere among the singular values, or at one of them."""
    B = trajectory(kind, N, max(m, n), min(m, n), seed)
    sigma = np.sort(np.linalg.svd(B, compute_uv=False).ravel())
    mu = float(sigma[int(place * (len(sigma) - 1))])
    if mu < max(1e-6 * sigma[-1], 1e-9):
        return
    lowest = np.linalg.eigvalsh(hessian(B, np.zeros_like(B[0]), mu))[0]
    for threshold in (mu, 0.97 * mu):
        found = bound(B, threshold, below * threshold)
        assert 0 <= found <= max(lowest, 0) + 1e-6 * N


@given(
    kind=st.sampled_from(list(TRAJECTORIES)),
    N=st.integers(3, 6),
    m=st.integers(1, 6),
    n=st.integers(1, 6),
    seed=st.integers(0, 99),
    place=st.floats(0, 1),
    cut=st.sampled_from([0.85, 0.7, 0.4]),
)
@settings(max_examples=200, deadline=None)
def test_nor_is_it_above_that_of_what_is_looked_at(
    kind: str, N: int, m: int, n: int, seed: int, place: float, cut: float
) -> None:
    """N − ΣK_i, assembled on every direction of the cores: rounding hides some from Lanczos's few steps."""
    B = trajectory(kind, N, max(m, n), min(m, n), seed)
    sigma = np.sort(np.linalg.svd(B, compute_uv=False).ravel())
    mu = 0.9 * float(sigma[int(place * (len(sigma) - 1))])
    found = [factors(b).above(cut * mu) for b in B]
    if mu < max(1e-4 * sigma[-1], 1e-9) or not all(len(part.sigma) and part.sigma[0] > mu for part in found):
        return
    scaled = coarse(found, mu * (1 - SLIP))
    bases = joint(scaled, [])
    K = Curvature(
        in_bases(scaled, bases), (1.0, 1.0), lambda s: (s - 1).clamp(min=0) / (s - cut).clamp(min=1 - cut)
    )
    p, q = bases.U.shape[1], bases.V.shape[1]
    every = torch.stack([K.of(one).flatten() for one in torch.eye(p * q).view(-1, p, q)]).double()
    lowest = N - float(torch.linalg.eigvalsh((every + every.T) / 2)[-1])
    assert Fit(found, mu, 0.0, cut * mu).bound.curvature <= max(lowest, 0.0) + 1e-6 * N


@given(
    kind=st.sampled_from(["falling", "twins", "plateau"]),
    N=st.integers(3, 5),
    m=st.integers(2, 7),
    n=st.integers(2, 7),
    seed=st.integers(0, 99),
    place=st.floats(0.1, 0.9),
    rest=st.sampled_from([0.9, 1e-12]),
)
@settings(max_examples=80, deadline=None)
def test_force_and_distance_of_a_slope_are_no_less_than_those_on_the_hessian(
    kind: str, N: int, m: int, n: int, seed: int, place: float, rest: float
) -> None:
    """√⟨r, H⁻¹r⟩, for slopes within what leads, beside it, anywhere and where the fit is flattest."""
    B = trajectory(kind, N, max(m, n), min(m, n), seed)
    sigma = np.sort(np.linalg.svd(B, compute_uv=False).ravel())
    mu, rng = float(sigma[int(place * (len(sigma) - 1))]), np.random.default_rng(seed)
    if mu < max(1e-6 * sigma[-1], 1e-9):
        return
    H, found = hessian(B, np.zeros_like(B[0]), mu), [factors(b).above(rest * mu) for b in B]
    flattest = np.linalg.eigh(H)[1][:, 0].reshape(B[0].shape)
    for r in (rng.standard_normal(B[0].shape), B[0], found[0].matrix().numpy(), flattest):
        sharp = Fit(found, mu, 0.0, rest * mu, slope_of(r)).bound
        if sharp.curvature:  # or both are ∞
            solved = np.linalg.solve(H, r.ravel())
            assert sharp.force**2 >= (1 - 1e-6) * r.ravel() @ solved
            # x = 2H⁻¹r is one with ⟨x, Hx⟩ ≤ 2⟨r, x⟩
            assert distance(sharp, 0.0) >= (1 - 1e-6) * 2 * np.linalg.norm(solved)


@pytest.mark.parametrize("kind", ["falling", "plateau", "deficient"])
def test_with_every_singular_value_known_the_shift_is_newton_s_step(kind: str) -> None:
    """‖H⁻¹r‖, for slopes within the span of what leads, half outside of it and anywhere."""
    B = trajectory(kind, 4, 9, 7, 0)
    mu = 0.6 * float(np.linalg.svd(B, compute_uv=False)[:, 0].min())
    B, rng = B - minimise(B, mu).z, np.random.default_rng(0)
    H, found = hessian(B, np.zeros_like(B[0]), mu), [factors(b) for b in B]
    leading = [part.above(0.5 * mu) for part in found]
    U, V = (torch.cat([part[side] for part in leading], 1).numpy() for side in (0, 2))
    inside, left, right = (
        U @ V.T,
        U @ rng.normal(size=(U.shape[1], 7)),
        rng.normal(size=(9, V.shape[1])) @ V.T,
    )
    for r in (inside, left, right, B[0]):
        sharp = Fit(found, mu, 0.0, 1e-12 * mu, slope_of(r)).bound
        assert sharp.curvature > FLAT
        assert sharp.shift == pytest.approx(np.linalg.norm(np.linalg.solve(H, r.ravel())), rel=0.1)


@pytest.mark.parametrize("kind", ["falling", "plateau", "deficient"])
def test_beside_what_leads_the_shift_is_that_of_one_side(kind: str) -> None:
    """(N − ΣUαUᵀ)⁻¹r with one side among what leads, r/N with none."""
    B, rng = trajectory(kind, 4, 30, 25, 0), np.random.default_rng(0)
    mu = 0.8 * float(np.linalg.svd(B, compute_uv=False)[:, 0].min())
    rest, found = 0.85 * mu, [factors(b).above(0.85 * mu) for b in B]
    bases = [np.linalg.qr(torch.cat([part[side] for part in found], 1).numpy())[0] for side in (0, 2)]
    outside = [np.eye(len(basis)) - basis @ basis.T for basis in bases]
    for side in (0, 1):
        C = 4 * np.eye(len(bases[side]))
        for part in found:
            sigma = part.sigma.numpy()
            own = part[2 * side].numpy() * np.sqrt(np.maximum(sigma - mu, 0) / (sigma - rest))
            C -= own @ own.T
        r = bases[side] @ rng.normal(size=(bases[side].shape[1], len(outside[1 - side]))) @ outside[1 - side]
        solved = np.linalg.solve(C, r)
        sharp = Fit(found, mu, 0.0, rest, slope_of(r if side == 0 else r.T)).bound
        assert sharp.curvature > FLAT
        assert sharp.shift == pytest.approx(np.linalg.norm(solved), rel=0.03)
        assert sharp.force == pytest.approx(np.sum(r * solved) ** 0.5, rel=0.03)
    r = outside[0] @ rng.standard_normal((30, 25)) @ outside[1]
    sharp = Fit(found, mu, 0.0, rest, slope_of(r)).bound
    assert sharp.shift == pytest.approx(np.linalg.norm(r) / 4, rel=0.03)
    assert sharp.force == pytest.approx(np.linalg.norm(r) / 2, rel=0.03)


@pytest.mark.parametrize("N", [3, 5])
@pytest.mark.parametrize("kind", ["plateau", "deficient", "twins", "falling"])
def test_with_every_singular_value_known_it_is_not_much_lower(kind: str, N: int) -> None:
    """But where one checkpoint has no task vector: then that alone is looked at."""
    B = trajectory(kind, N, 8, 7, 0)
    sigma = np.sort(np.linalg.svd(B, compute_uv=False).ravel())
    mu = float(sigma[-len(sigma) // 3])
    B = B - minimise(B, mu).z
    lowest = np.linalg.eigvalsh(hessian(B, np.zeros_like(B[0]), mu))[0]
    still = int(np.sum(np.linalg.norm(B, 2, axis=(1, 2)) <= mu))
    assert lowest > FLAT  # or nothing would be promised
    assert bound(B, mu, 1e-12 * mu) >= (still or 0.9 * ENOUGH * lowest)
    if still:
        return
    found, reach = [factors(b) for b in B], 0.1 * mu
    lower = np.linalg.eigvalsh(hessian(B, np.zeros_like(B[0]), mu - reach))[0]
    assert Fit(found, mu, reach, 1e-12 * mu).bound.curvature <= lower + 1e-6 < lowest


@pytest.mark.parametrize("N", [4, 6])
def test_an_even_drift_is_flat_and_an_odd_one_is_not(N: int) -> None:
    """Half of the checkpoints pull one way, half the other, all by more than μ: any z between is as good."""
    D = np.zeros((9, 7))
    D[0, 0] = 10.0
    even = np.stack([t * D for t in np.linspace(-1, 1, N)])
    odd = np.stack([t * D for t in np.linspace(-1, 1, N + 1)])
    assert bound(even, 1.0, 0.9) < 1e-6
    assert bound(odd, 1.0, 0.9) == 1.0  # the one in the middle, which is at the mean


def test_a_checkpoint_without_task_vector_curves_by_one() -> None:
    """However many singular values the others have above μ, each of the still ones gives 1 in every direction."""
    B = trajectory("falling", 5, 8, 6, 0)
    sizes = np.linalg.norm(B, 2, axis=(1, 2))
    mu = float(np.sort(sizes)[:2].mean())
    still = int(np.sum(sizes <= mu))
    lowest = np.linalg.eigvalsh(hessian(B, np.zeros_like(B[0]), mu))[0]
    assert bound(B, mu, 0.9 * mu) == still <= lowest + 1e-12


@on_devices
def test_single_precision_agrees_with_double(device: str) -> None:
    B = trajectory("twins", 3, 60, 50, 0)
    z = minimise(B, 20.0, gap=1e-6).z
    found = [bound(B - z, 20.0, 17.0, dtype, device) for dtype in (torch.float32, torch.float64)]
    assert found[0] == pytest.approx(found[1], abs=0.02)
    assert found[1] > FLAT
