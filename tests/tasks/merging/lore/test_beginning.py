"""What is proven before any pass over the matrices is true, and is not returned where it does not suffice."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.merging.lore import beginning, converge, newton, spectrum, triplets
from tasks.merging.lore.beginning import begin, first_guess, proven_at_once
from tasks.merging.lore.enclosure import LESS_SURE, at_guess, enclosure_within, prove_anywhere
from tasks.merging.lore.penalty import Penalty, Scale
from tasks.merging.lore.problem import Near, Proof, Unproven
from tasks.merging.lore.solve import converged
from tasks.merging.lore.steering import DEEP
from tests.support.lore_checks import DTYPES, as_on_a_gpu, ignore, on_devices
from tests.support.lore_factors import double, factors, place_of
from tests.support.lore_matrices import TRAJECTORIES, edge, family, trajectory
from tests.support.lore_reference import Array, minimise

AUTO = Scale(1.05, "auto", "nuclear", (1, 1))


def size_of(B: Array) -> float:
    return float(np.linalg.norm(B)) / len(B) ** 0.5


@on_devices
@pytest.mark.parametrize("kind", ["falling", "power law", "drift"])
def test_what_the_mean_does_not_prove_a_guess_does(kind: str, device: str) -> None:
    B = trajectory(kind, 5, 120, 100, 0)
    tolerance, scale = Near(1.6 * size_of(B)), AUTO._replace(shape=(120, 100))
    found = begin(torch.from_numpy(B).float().to(device), scale, tolerance, ignore).proven
    assert found is not None
    here, written = found.here, place_of(found.here)
    assert here.norms.energy > 0.0  # not the mean
    assert here.norms.energy == pytest.approx(np.sum(written**2), rel=1e-3)
    best = minimise(B, here.mu, gap=1e-8).z
    assert np.linalg.norm(written - best) <= found.proof.error <= tolerance.distance
    assert np.linalg.norm(written - best) < 0.2 * np.linalg.norm(best)  # and it is a good guess


def test_the_way_of_a_gpu_proves_it_too() -> None:
    with as_on_a_gpu():
        test_what_the_mean_does_not_prove_a_guess_does("falling", "cpu")


@given(
    kind=st.sampled_from([*TRAJECTORIES, "noise"]),
    N=st.integers(3, 6),
    share=st.sampled_from([0.02, 0.05]),
    turned=st.sampled_from([0.0, 0.003, 0.01]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=20)
def test_whatever_is_guessed_no_minimiser_is_farther_than_proven(
    kind: str, N: int, share: float, turned: float, dtype: torch.dtype, seed: int
) -> None:
    """Of triplets that are not those of the matrices, too: smooth spectra, plateaus, clusters, few dimensions."""
    rng = np.random.default_rng(seed)
    B = rng.standard_normal((N, 60, 50)) if kind == "noise" else trajectory(kind, N, 60, 50, seed)
    B -= B.mean(axis=0)
    matrices = torch.from_numpy(B).to(dtype)
    start = spectrum.look(matrices, Scale(share, "rank", "nuclear", (60, 50)))
    guess = first_guess(matrices, start, 0.85, ignore)
    if guess is None:
        return
    for i, part in enumerate(guess):
        Q, R = torch.linalg.qr(
            part.U + turned * torch.from_numpy(rng.standard_normal(part.U.shape)).to(dtype)
        )
        guess[i] = part._replace(U=Q * R.diagonal().sign())
    here = at_guess(guess, start.penalty.mu, 0.85)
    enclosure = enclosure_within(here, 1e9, LESS_SURE)
    proof = enclosure and prove_anywhere(matrices, start.total, here, enclosure)
    if not proof:
        return
    best = minimise(B, here.mu, gap=1e-8).z
    assert np.linalg.norm(place_of(here) - best) <= proof.error


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("kind", "moves"), [("falling", False), ("power law", True), ("twins", True)])
def test_tall_matrices_are_proven_where_they_lie(
    kind: str, moves: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without their triangular factor, whose products take longest; at the mean or at a guess."""
    for module in (triplets, spectrum):
        monkeypatch.setattr(module, "DIRECT", 30)
    B = trajectory(kind, 5, 1500, 60, 0)
    scale, tolerance = AUTO._replace(shape=(1500, 60)), Near(1.6 * size_of(B))
    found = proven_at_once(torch.from_numpy(B).to(dtype), scale, tolerance, ignore)
    assert found is not None
    assert (found.here.norms.energy > 0.0) == moves
    best = minimise(B, found.here.mu, gap=1e-6).z
    assert np.linalg.norm(place_of(found.here) - best) <= found.proof.error <= tolerance.distance


def test_nothing_is_looked_at_in_vain_where_the_tolerance_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    B = trajectory("power law", 5, 1500, 60, 0)
    monkeypatch.setattr(beginning, "look", None)
    for fine in (Near(0.01 * size_of(B)), 1e-4):
        assert proven_at_once(torch.from_numpy(B), AUTO._replace(shape=(1500, 60)), fine, ignore) is None


def test_what_is_too_strong_for_its_precision_is_not_proven() -> None:
    B = trajectory("strong", 5, 1500, 60, 0)
    scale, tolerance = AUTO._replace(shape=(1500, 60)), Near(1.6 * size_of(B))
    assert proven_at_once(torch.from_numpy(B).float(), scale, tolerance, ignore) is None


def test_the_mean_is_not_returned_where_its_bound_turns_out_too_large(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Triplets that are off by more than is usual make it larger than it was estimated to be."""
    rng = np.random.default_rng(0)
    D = rng.standard_normal((450, 2)) @ rng.standard_normal((2, 420))
    line = [t * 0.15 * D + rng.standard_normal((450, 420)) for t in np.linspace(-1, 1, 5)]
    B = np.stack(line) - np.mean(line, axis=0)
    distance = 3 * float(np.linalg.norm(B)) / 5**0.5

    def too_large(*given: object) -> Proof:
        return Proof(0.0, 1.01 * distance, None)

    for module in (beginning, converge):
        monkeypatch.setattr(module, "prove_anywhere", too_large)
    scale = Scale(1.05, "auto", "nuclear", B.shape[1:])  # type: ignore[arg-type]
    with pytest.raises(Unproven):
        converged(torch.from_numpy(B), scale, Near(distance), ignore)


@on_devices
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("height", [3.0, 300.0])
def test_a_first_guess_leaves_little_of_the_way(
    height: float, dtype: torch.dtype, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of spikes out of noise, the stronger the less: then the noise hardly turns what leads."""
    for module in (triplets, spectrum):
        monkeypatch.setattr(module, "DIRECT", 30)
    rng = np.random.default_rng(0)
    made = rng.standard_normal((3, 120, 100))
    for i in range(3):
        made[i] += (
            height * edge(120, 100) * np.outer(*map(unit, (rng.standard_normal(120), rng.normal(size=100))))
        )
    B = made - made.mean(axis=0)
    given = torch.from_numpy(B).to(device, dtype)
    start = spectrum.look(given, Scale(1.05, "auto", "nuclear", (120, 100)))
    mu = start.penalty.mu
    told = list[int]()
    guess = first_guess(given, start, DEEP, told.append)
    assert guess is not None
    assert set(told) == {1}  # nothing but the first pass
    best = minimise(B, mu, gap=1e-10).z
    for part in guess:
        for side in (part.U, part.V):
            np.testing.assert_allclose(double(side.T @ side), np.eye(part.rank), atol=1e-4)
    z = -np.mean([double(part.thresholded(mu).matrix()) for part in guess], axis=0)
    assert np.linalg.norm(z - best) < min(0.1 * np.linalg.norm(best), mu)
    first = next(newton.iterates(given, start, DEEP, ignore, guess))
    assert first.passes == 1
    np.testing.assert_allclose(double(first.z.matrix()), z, atol=1e-4 * np.linalg.norm(z))
    assert first.norms.length < 0.1 * mu


def unit(vector: Array) -> Array:
    return vector / np.linalg.norm(vector)


def test_a_first_guess_is_made_on_the_way_of_a_gpu_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with as_on_a_gpu():
        test_a_first_guess_leaves_little_of_the_way(3.0, torch.float32, "cpu", monkeypatch)


def test_no_first_guess_is_made_where_nothing_leads_or_nearly_all_does() -> None:
    B = torch.from_numpy(family("flat", 3, 12, 10, 0))
    full = spectrum.look(B, Scale(1.0, "absolute", "nuclear", (12, 10)))
    assert first_guess(B, full, DEEP, ignore) is None
    leading = [factors(b) for b in B.numpy()]
    for mu in (1e-3, 1e3):
        start = full._replace(penalty=Penalty("nuclear", mu), leading=leading)
        assert first_guess(B, start, DEEP, ignore) is None
