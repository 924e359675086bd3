"""Newton's iterates are followed until the tolerance is proven, or it is clear that it cannot be."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.merging.lore import beginning, spectrum, triplets
from tasks.merging.lore.beginning import first_guess
from tasks.merging.lore.certificate import met, radius_of
from tasks.merging.lore.converge import fit_at
from tasks.merging.lore.penalty import Scale
from tasks.merging.lore.problem import GAP_INSTEAD, Converged, Near, Proof, Unproven
from tasks.merging.lore.solve import converged
from tests.support.lore_checks import ignore
from tests.support.lore_curvature_reference import exact, hessian
from tests.support.lore_matrices import TRAJECTORIES, edge, family, trajectory
from tests.support.lore_reference import Array, dual, minimise, noise_edge, primal


def run(B: Array, mu: float, tolerance: float | Near, dtype: torch.dtype = torch.float64) -> Converged:
    given = torch.from_numpy(B).to(dtype)
    return converged(given, Scale(mu, "absolute", "nuclear", B.shape[1:]), tolerance, ignore)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("gap", "error", "curvature", "tolerance", "enough"),
    [
        (1e-5, 9.0, 1.0, 1e-4, True),
        (1e-4, math.inf, 0.0, 1e-4, True),
        (2e-4, 0.0, 1.0, 1e-4, False),
        (1.0, 0.5, 1.0, Near(0.5), True),
        (0.0, 0.6, 1.0, Near(0.5), False),
        (0.0, math.inf, 1.0, Near(0.5), False),  # near enough later
        (GAP_INSTEAD, math.inf, 0.0, Near(0.5), True),
        (2 * GAP_INSTEAD, math.inf, 0.0, Near(0.5), False),
        (0.0, 0.5, None, Near(0.5), True),
        (0.0, 0.6, None, Near(0.5), False),  # whether it is flat is not known
    ],
)
def test_a_gap_or_a_distance_is_asked_for_and_of_a_flat_minimum_a_gap(
    gap: float, error: float, curvature: float | None, tolerance: float | Near, enough: bool
) -> None:
    assert met(Proof(gap, error, curvature), tolerance) == enough


@pytest.mark.parametrize("tolerance", [1e-3, 1e-6, 1e-9, Near(1.0), Near(1e-2), Near(1e-6)])
@pytest.mark.parametrize("kind", ["spikes", "power law", "low rank"])
def test_what_is_proven_is_what_was_asked_for_and_true(kind: str, tolerance: float | Near) -> None:
    B = family(kind, 3, 9, 7, 0)
    B /= np.linalg.norm(B) / 30
    mu = max(0.8 * noise_edge(B), 0.5)
    here, start, proof = run(B, mu, tolerance)
    assert met(proof, tolerance)
    deltas = np.stack([delta.matrix().numpy() for delta in here.deltas])
    best = exact(B, mu)
    assert np.linalg.norm(here.z.matrix().numpy() - best.z) <= proof.error + best.off
    assert np.linalg.norm(deltas.mean(axis=0) + best.z) <= proof.error + best.off
    assert 1 - dual(B, deltas, mu) / primal(B, deltas, mu) <= proof.gap + 1e-13
    assert start.largest == pytest.approx(np.linalg.norm(B, 2, axis=(1, 2)).max(), rel=1e-6)


@pytest.mark.parametrize("N", [4, 6])
def test_of_a_flat_minimum_the_gap_is_proven_instead(N: int) -> None:
    """Also where a distance is asked for: there is none."""
    D = np.outer(np.eye(9)[0], np.eye(7)[0])
    noise = 0.01 * trajectory("twins", N, 9, 7, 0)
    B = np.stack([30 * t * D for t in np.linspace(-1, 1, N)]) + noise - noise.mean(axis=0)
    found = run(B, 2.0, Near(1e-3))
    assert math.isinf(found.proof.error)
    assert found.proof.gap <= GAP_INSTEAD


def test_float32_is_given_up_where_squares_lose_what_is_at_the_threshold() -> None:
    B = trajectory("strong", 3, 40, 30, 0)
    mu = 1e-3 * float(np.linalg.norm(B, 2, axis=(1, 2)).max())
    with pytest.raises(Unproven):
        run(B, mu, 1e-4, torch.float32)
    assert run(B, mu, 1e-4).proof.gap <= 1e-4


def test_a_tolerance_below_rounding_is_given_up_and_does_not_go_on_for_ever() -> None:
    B = family("spikes", 3, 40, 30, 0)
    for tolerance in (1e-13, Near(1e-9)):
        with pytest.raises(Unproven):
            run(B, noise_edge(B), tolerance, torch.float32)


@pytest.mark.parametrize("tolerance", [1e-4, Near(0.1)])
def test_progress_is_told_of_every_pass_and_its_exception_ends_it(tolerance: float | Near) -> None:
    B = torch.from_numpy(family("spikes", 3, 40, 30, 0))
    told = list[int]()
    scale = Scale(1.05, "noise_edge", "nuclear", (40, 30))
    found = converged(B, scale, tolerance, told.append)
    assert told == list(range(1, found.here.passes + 1))

    def stop(number: int) -> None:
        if number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        converged(B, scale, tolerance, stop)


@given(N=st.integers(3, 6), seed=st.integers(0, 99), share=st.floats(0.4, 1.2))
@settings(max_examples=25, deadline=None)
def test_the_curvature_that_is_used_is_that_of_a_smaller_threshold_or_less(
    N: int, seed: int, share: float
) -> None:
    """What comes to lead on the way to the minimiser, no further than the radius, leads there already."""
    B = family("spikes", N, 7, 6, seed)
    mu = share * noise_edge(B)
    here = run(B, mu, 1e-4).here
    lowest = np.linalg.eigvalsh(hessian(B, here.z.matrix().numpy(), mu - radius_of(here)))[0]
    assert fit_at(here, 1e-4).bound.curvature <= max(lowest, 0) + 1e-6


def test_spikes_out_of_noise_take_three_passes_however_strong(monkeypatch: pytest.MonkeyPatch) -> None:
    """μ need not come down from σ_1, pass by pass, where what leads has been solved for itself."""
    for module in (triplets, spectrum):
        monkeypatch.setattr(module, "DIRECT", 30)
    for height in (3.0, 30.0, 300.0):
        rng = np.random.default_rng(0)
        made = rng.standard_normal((3, 120, 100))
        for own in made:
            u, v = rng.standard_normal(120), rng.standard_normal(100)
            own += height * edge(120, 100) * np.outer(u, v) / np.linalg.norm(u) / np.linalg.norm(v)
        B = torch.from_numpy(made - made.mean(axis=0))
        scale = Scale(1.05, "auto", "nuclear", (120, 100))
        assert converged(B, scale, Near(0.01), ignore).here.passes <= 3


@pytest.mark.parametrize("unit", ["auto", "rank"])
@pytest.mark.parametrize("kind", [*TRAJECTORIES, "noise"])
def test_from_a_first_guess_the_minimum_is_proven_and_true(
    kind: str, unit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the spectra: smooth, plateaus, clusters at μ, few dimensions, flat minima, bfloat16's rounding."""
    for module in (triplets, spectrum):
        monkeypatch.setattr(module, "DIRECT", 30)
    rng = np.random.default_rng(0)
    B = rng.standard_normal((3, 90, 80)) if kind == "noise" else trajectory(kind, 3, 90, 80, 0)
    B -= B.mean(axis=0)
    guesses = []

    def kept(*given: Any) -> Any:
        guesses.append(first_guess(*given))
        return guesses[-1]

    monkeypatch.setattr(beginning, "first_guess", kept)
    scale = Scale(1.05 if unit == "auto" else 0.06, unit, "nuclear", (90, 80))  # type: ignore[arg-type]
    tolerance = Near(0.01 * float(np.linalg.norm(B)) / 3**0.5)
    here, _, proof = converged(torch.from_numpy(B), scale, tolerance, ignore)
    assert met(proof, tolerance)
    assert guesses
    assert None not in guesses
    best = minimise(B, here.mu, gap=1e-9)
    deltas = np.stack([delta.matrix().numpy() for delta in here.deltas])
    assert 1 - dual(B, deltas, here.mu) / primal(B, deltas, here.mu) <= proof.gap + 1e-9
    assert np.linalg.norm(deltas.mean(axis=0) + best.z) <= proof.error + 1e-3 * tolerance.distance
