"""A bound on the distance of any minimiser, from any z: weights in few digits need no curvature."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.merging.lore.algebra import energy
from tasks.merging.lore.enclosure import SLACK, at_mean, enclosure_within, prove_anywhere
from tasks.merging.lore.penalty import Penalty, Scale
from tasks.merging.lore.problem import Iterate, Near, Proof, Start
from tasks.merging.lore.solve import converged
from tests.support.lore_checks import DTYPES, as_on_a_gpu, ignore, on_devices
from tests.support.lore_curvature_reference import exact
from tests.support.lore_factors import CUT, factors, iterate, place_of
from tests.support.lore_matrices import TRAJECTORIES, family, trajectory
from tests.support.lore_reference import Array, minimise, primal, svt

FAR = 1e9
"""A distance that asks for nothing."""


def stored(B: Array, digits: float) -> Array:
    """Return deviations of weights that are rounded to so many deviations, as bfloat16 does."""
    size = float(np.sqrt(np.mean(B**2))) * digits or 1.0
    rounded = np.round((B + np.random.default_rng(0).standard_normal(B.shape[1:])) / size) * size
    return rounded - rounded.mean(axis=0)


def proof_at(B: Array, here: Iterate, distance: float = FAR) -> Proof | None:
    """Return what is proven of an iterate in its precision, if a distance is to be."""
    given = torch.from_numpy(B).to(here.z.core.dtype)
    enclosure = enclosure_within(here, distance)
    return prove_anywhere(given, energy(given), here, enclosure) if enclosure else None


def turned(here: Iterate, angle: float, rng: np.random.Generator) -> Iterate:
    """Return the iterate with triplets whose right vectors are turned by about so much."""
    leading = []
    for part in here.leading:
        away = torch.from_numpy(rng.standard_normal(tuple(part.V.shape))).to(part.V)
        Q, R = torch.linalg.qr(part.V + angle * away)
        leading.append(part._replace(V=Q * R.diagonal().sign()))
    return here._replace(leading=leading, deltas=[part.thresholded(here.mu) for part in leading])


@given(
    kind=st.sampled_from(list(TRAJECTORIES)),
    N=st.integers(3, 6),
    m=st.integers(1, 6),
    n=st.integers(1, 6),
    seed=st.integers(0, 99),
    place=st.floats(0, 1),
    factor=st.sampled_from([1.0, 1 + 1e-6, 1 - 1e-6, 0.9, 1.1, 0.5]),
    away=st.floats(-4, 1),
    wrong=st.sampled_from([0.0, 0.0, 1e-3, 1e-2, 0.1]),
    distance=st.sampled_from([FAR, 30.0, 3.0]),
    dtype=st.sampled_from(DTYPES),
    coarse=st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_no_minimiser_is_further_away_than_is_proven_from_anywhere(
    kind: str,
    N: int,
    m: int,
    n: int,
    seed: int,
    place: float,
    factor: float,
    away: float,
    wrong: float,
    distance: float,
    dtype: torch.dtype,
    coarse: bool,
) -> None:
    """Also of weights that were rounded coarsely, in either precision, and with wrong triplets."""
    m, n = max(m, n), min(m, n)
    B = trajectory(kind, N, m, n, seed)
    B = stored(B, 2.0) if coarse else B
    sigma = np.sort(np.linalg.svd(B, compute_uv=False).ravel())
    mu = factor * float(sigma[int(place * (len(sigma) - 1))])
    if mu < max(1e-2 * sigma[-1], 1e-9):  # below, float32 proves nothing
        return
    best = exact(B, mu)
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((m, n))
    here = iterate(B, best.z + mu * 10**away * X / np.linalg.norm(X), mu, dtype)
    here = turned(here, wrong, rng)
    rounding = 1e-5 * float(np.linalg.norm(B)) if dtype == torch.float32 else 1e-13 * float(np.linalg.norm(B))
    found = proof_at(B, here, distance * mu)
    if found is None:
        return
    assert found.error >= np.linalg.norm(place_of(here) - best.z) - best.off - rounding
    if not wrong:
        assert found.error <= distance * mu + rounding
    deltas = np.stack([delta.matrix().double().numpy() for delta in here.deltas])
    value, least = (primal(B, those, mu) for those in (deltas, np.stack([svt(b - best.z, mu) for b in B])))
    assert value - least <= (found.gap + 1e-6 * (dtype == torch.float32) + 1e-13) * value


@pytest.mark.parametrize("kind", [kind for kind in TRAJECTORIES if kind != "strong"])
def test_at_the_minimum_it_is_little_more_than_the_nuclear_norms(kind: str) -> None:
    """‖z*‖_F ≤ Σ‖δ_i‖_*/N, and a lower threshold's task vectors take more."""
    B = trajectory(kind, 5, 30, 20, 0)
    mu = float(np.sort(np.linalg.svd(B, compute_uv=False), axis=1)[:, -3].max())
    best = minimise(B, mu, gap=1e-10)
    found = proof_at(B, iterate(B, best.z, mu))
    prices, lower = (
        sum(np.linalg.norm(svt(b - best.z, at), "nuc") for b in B) / len(B) for at in (mu, 0.85 * mu)
    )
    assert found is not None
    assert np.linalg.norm(best.z) <= prices
    assert prices <= found.error <= 2 * lower + 0.1 * mu


@pytest.mark.parametrize("N", [4, 6])
def test_of_a_flat_minimum_every_minimiser_is_enclosed(N: int) -> None:
    """Every z between the two checkpoints in the middle, less μ, is one."""
    D = np.outer(np.eye(7)[0], np.eye(5)[0])
    height = 3.0
    B = np.stack([t * D for t in np.linspace(-1, 1, N)]) * height * (N - 1)
    here = iterate(B, 0.9 * (height - 1) * D, 1.0)
    assert here.norms.length < 1e-12
    found = proof_at(B, here)
    assert found is not None
    assert (height - 1) * 1.9 <= found.error < 30


def test_far_from_the_minimum_nothing_is_claimed() -> None:
    B = family("spikes", 3, 20, 14, 0)
    here = iterate(B, 30 * np.random.default_rng(0).standard_normal((20, 14)), 8.0)
    assert enclosure_within(here, FAR) is None


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(60, 50), (450, 420)])
def test_a_coarse_tolerance_is_met_in_fewer_passes_and_true(
    shape: tuple[int, int], dtype: torch.dtype
) -> None:
    """Tolerances of two deviations, as bfloat16 has: what is found is far nearer than that."""
    rng = np.random.default_rng(0)
    D = rng.standard_normal((shape[0], 3)) @ rng.standard_normal((3, shape[1]))
    line = [t * 0.6 * D + rng.standard_normal(shape) for t in np.linspace(-1, 1, 5)]
    B = np.stack(line) - np.mean(line, axis=0)
    size, scale = float(np.linalg.norm(B)) / 5**0.5, Scale(1.05, "auto", "nuclear", shape)
    given = torch.from_numpy(B).to(dtype)
    coarse, fine = (
        converged(given.to(kind), scale, Near(share * size), ignore)
        for share, kind in ((2.0, dtype), (1e-6, torch.float64))
    )
    assert coarse.here.passes < fine.here.passes
    apart = float(np.linalg.norm(place_of(coarse.here) - place_of(fine.here)))
    assert apart - fine.proof.error <= coarse.proof.error <= 2.0 * size
    assert apart < 0.1 * size


@pytest.mark.parametrize("wrong", [0.0, 0.02])
@pytest.mark.parametrize("kind", TRAJECTORIES)
def test_what_is_proven_is_what_whole_matrices_give_and_only_where_it_holds(kind: str, wrong: float) -> None:
    """Norms, objective and dual value by numpy, whatever the triplets; a θ without room is refused."""
    rng = np.random.default_rng(1)
    B = trajectory(kind, 5, 30, 20, 0)
    sigma = np.linalg.svd(B, compute_uv=False)
    mu, largest = float(sigma[:, 2].max()), float(sigma.max())
    best = minimise(B, mu, gap=1e-8).z
    X = rng.standard_normal(best.shape)
    here = iterate(B, best + 0.02 * mu * X / np.linalg.norm(X, 2), mu)
    here = turned(here, wrong * mu / largest, rng)
    given, enclosure = torch.from_numpy(B), enclosure_within(here, FAR)
    assert enclosure is not None
    lower = np.stack([part.thresholded(CUT * mu).matrix().numpy() for part in here.leading])
    P = lower - lower.mean(axis=0)
    room = mu - float(np.linalg.norm(B - P, 2, axis=(1, 2)).max())
    theta = 0.99 * room
    found = prove_anywhere(given, energy(given), here, enclosure._replace(theta=theta))
    assert found is not None
    value = primal(B, np.stack([delta.matrix().numpy() for delta in here.deltas]), mu)
    gap = value - (np.sum(B**2) - np.sum(P**2)) / 2
    bound = np.linalg.norm(place_of(here)) + (1 + SLACK) * (gap / (5 * theta) + theta / 2)
    assert found.error == pytest.approx(bound, rel=1e-6)
    assert found.gap == pytest.approx(gap / value, rel=1e-6, abs=1e-12)
    assert prove_anywhere(given, energy(given), here, enclosure._replace(theta=1.01 * room)) is None


@pytest.mark.parametrize("kind", ["falling", "power law", "drift"])
def test_a_smaller_room_is_asked_for_as_far_as_it_proves_enough(kind: str) -> None:
    """Of a distance that is hardly proven all of the room that may be there, of a large one the least."""
    B = trajectory(kind, 5, 30, 20, 0)
    mu = float(np.linalg.svd(B, compute_uv=False)[:, 2].max())
    here, shares = iterate(B, minimise(B, mu, gap=1e-8).z, mu), (0.6, 0.3)
    most, least = (enclosure_within(here, FAR, (share, share)) for share in shares)
    assert most is not None
    assert least is not None
    assert 2 * least.theta == pytest.approx(most.theta)
    thetas = []
    for distance in np.linspace(1.001 * most.error, 1.2 * least.error, 9):
        enclosure = enclosure_within(here, float(distance), shares)
        assert enclosure is not None
        assert enclosure.error <= distance
        thetas.append(enclosure.theta)
    assert thetas == sorted(thetas, reverse=True)
    assert thetas[0] == pytest.approx(most.theta, rel=0.02)
    assert thetas[-1] == pytest.approx(least.theta)


@pytest.mark.parametrize("which", [0, -1])
def test_a_triplet_left_out_is_refused(which: int) -> None:
    B, mu = family("spikes", 3, 20, 14, 0), 8.0
    here = iterate(B, minimise(B, mu, gap=1e-12).z, mu)
    assert proof_at(B, here) is not None
    first = here.leading[0]
    kept = [j for j in range(first.rank) if j != which % here.deltas[0].rank]
    fewer = first._replace(U=first.U[:, kept], sigma=first.sigma[kept], V=first.V[:, kept])
    assert proof_at(B, here._replace(leading=[fewer, *here.leading[1:]])) is None


@pytest.mark.parametrize("depth", [0.3, 0.6])
def test_the_mean_is_an_iterate_where_the_look_went_deep_enough(depth: float) -> None:
    B, mu = family("spikes", 3, 20, 14, 0), 8.0
    leading = [factors(b).above(depth * mu) for b in B]
    start = Start(Penalty("nuclear", mu), mu, 20.0, energy(torch.from_numpy(B)), leading)
    here, again = at_mean(start, torch.from_numpy(B[0])), iterate(B, np.zeros((20, 14)), mu)
    assert here is not None
    assert here.cut * mu == max(float(part.sigma[-1]) for part in leading)
    assert here.norms.length == pytest.approx(again.norms.length)
    assert (here.norms.energy, here.norms.along) == (0.0, 0.0)
    np.testing.assert_allclose(place_of(here), place_of(again), atol=1e-12)
    assert (
        at_mean(start._replace(leading=[part.above(mu) for part in leading]), torch.from_numpy(B[0])) is None
    )
    assert at_mean(start._replace(leading=[]), torch.from_numpy(B[0])) is None


@on_devices
def test_a_trajectory_that_rounding_hides_is_proven_at_the_mean(device: str) -> None:
    """No pass beyond the first look: all minimisers are nearer to the mean than the tolerance."""
    rng = np.random.default_rng(0)
    D = rng.standard_normal((120, 2)) @ rng.standard_normal((2, 100))
    line = [t * 0.15 * D + rng.standard_normal((120, 100)) for t in np.linspace(-1, 1, 5)]
    B = np.stack(line) - np.mean(line, axis=0)
    size = float(np.linalg.norm(B)) / 5**0.5
    found = converged(
        torch.from_numpy(B).float().to(device),
        Scale(1.05, "auto", "nuclear", B.shape[1:]),
        Near(3 * size),
        ignore,
    )
    assert found.here.passes == 1
    assert found.here.norms.energy == 0.0
    best = minimise(B, found.here.mu, gap=1e-8).z
    assert np.linalg.norm(place_of(found.here) - best) <= found.proof.error <= 3 * size
    assert math.isfinite(found.proof.gap)


def test_the_way_of_a_gpu_proves_it_too() -> None:
    with as_on_a_gpu():
        test_a_trajectory_that_rounding_hides_is_proven_at_the_mean("cpu")
