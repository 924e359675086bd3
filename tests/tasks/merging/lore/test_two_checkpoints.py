"""Two checkpoints: nothing is solved from the mean; anchored, one thresholding in closed form."""

import numpy as np
import pytest
import torch

from tasks.merging.lore import dense, newton, triplets, two_checkpoints
from tasks.merging.lore import spectrum as spectra
from tasks.merging.lore.penalty import Scale
from tasks.merging.lore.problem import Near
from tasks.merging.lore.solve import solve
from tests.support.lore_checks import DTYPES, matrices, off, on_devices
from tests.support.lore_matrices import family, with_spectrum
from tests.support.lore_reference import deviations, noise_edge, svt


@pytest.mark.parametrize("unit", ["absolute", "sigma1", "noise_edge"])
@pytest.mark.parametrize("shape", [(30, 20), (20, 30), (200, 180)])
def test_from_the_mean_nothing_is_solved_or_decomposed(
    unit: str, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thresholding is odd: δ_1 = −δ_2 for every μ."""

    def decomposition(*given: object, **options: object) -> None:
        raise AssertionError("two checkpoints from the mean need no decomposition")

    for name in ("svd", "svdvals", "eigh", "eigvalsh", "qr", "cholesky_ex"):
        monkeypatch.setattr(torch.linalg, name, decomposition)
    B = torch.from_numpy(family("spikes", 2, *shape, 0))
    solution = solve(B, Scale(0.5, unit, "nuclear", shape), 1e-4)  # type: ignore[arg-type]
    assert not matrices(solution).any()
    assert matrices(solution).shape == B.shape
    assert (solution.solver, solution.passes, solution.gap) == ("symmetric", 0, 0.0)


def test_the_closed_form_is_what_descent_from_the_anchor_reaches() -> None:
    """Algorithm 1 started at θ_0 = θ_2, to its end."""
    B = family("spikes", 2, 10, 8, 0)
    mu, theta_0 = 0.5 * noise_edge(B), B[1]
    for _ in range(2000):
        deltas = np.stack([svt(b - theta_0, mu) for b in B])
        theta_0 = np.mean(B - deltas, axis=0)
    found = solve(torch.from_numpy(B), Scale(mu, "absolute", "nuclear", (10, 8)), 1e-10, anchor=1)
    assert off(matrices(found).sum(axis=0), deltas.sum(axis=0)) < 1e-6


@on_devices
@pytest.mark.parametrize("anchor", [0, 1])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "tolerance"), [((12, 9), 1e-10), ((9, 12), 1e-10), ((300, 200), 1e-4)])
def test_anchored_is_one_thresholding_by_twice_mu(
    anchor: int, dtype: torch.dtype, shape: tuple[int, int], tolerance: float, device: str
) -> None:
    """δ_other = SVT(θ_other − θ_anchor; 2μ), and the anchor's own is zero."""
    B = torch.from_numpy(family("spikes", 2, *shape, 3)).to(device, dtype)
    exact = deviations(B.double().cpu().numpy())
    mu = 0.75 * noise_edge(exact)
    found = solve(B, Scale(mu, "absolute", "nuclear", shape), tolerance, anchor=anchor)
    assert found.solver == "anchored"
    assert found.deltas[anchor].rank == 0
    assert found.spectra[anchor] == []
    expected = svt(exact[1 - anchor] - exact[anchor], 2 * mu)
    rounding = 1e-5 if dtype == torch.float32 else 1e-9
    assert off(matrices(found)[1 - anchor], expected) < max(tolerance**0.5 / 3, rounding)
    assert found.thresholds[1 - anchor] == pytest.approx(2 * mu)
    assert found.gap <= tolerance


@pytest.mark.parametrize("unit", ["sigma1", "noise_edge"])
@pytest.mark.parametrize("shape", [(40, 30), (250, 180)])
def test_relative_units_are_those_of_the_difference_that_is_thresholded(
    unit: str, shape: tuple[int, int]
) -> None:
    B = family("spikes", 2, *shape, 0)
    found = solve(torch.from_numpy(B), Scale(1.2, unit, "nuclear", shape), 1e-6, anchor=0)  # type: ignore[arg-type]
    D = (B[1] - B[0])[None]
    size = noise_edge(D) if unit == "noise_edge" else np.linalg.norm(D[0], 2)
    assert found.thresholds[1] == pytest.approx(1.2 * size, rel=1e-3)
    assert found.edge == pytest.approx(noise_edge(D), rel=1e-3)


def test_float64_decompositions_take_over_where_float32_cannot_prove_the_tolerance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []
    monkeypatch.setattr(two_checkpoints, "shrink", lambda *given: calls.append(1) or dense.shrink(*given))
    B = torch.from_numpy(family("spikes", 2, 250, 180, 0)).float()
    scale = Scale(noise_edge(B.double().numpy()), "absolute", "nuclear", (250, 180))
    for tolerance, decomposed in (
        (1e-4, False),
        (1e-15, True),
        (Near(1.0), False),
        (Near(1e-7), True),
    ):
        calls.clear()
        found = two_checkpoints.anchored(B, 1, scale, tolerance)
        assert bool(calls) == decomposed
        reached, asked = (
            (found.error, tolerance.distance) if isinstance(tolerance, Near) else (found.gap, tolerance)
        )
        assert reached <= asked


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("direct", [20, 1000])
@pytest.mark.parametrize("share", [0.5, 1.05])
@pytest.mark.parametrize("spectrum", ["spikes", "power law", "low rank", "outlier 1e4"])
def test_gap_and_error_are_upper_bounds_whichever_way_the_triplets_are_found(
    spectrum: str, share: float, direct: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (triplets, spectra, newton):
        monkeypatch.setattr(module, "DIRECT", direct)
    B = torch.from_numpy(family(spectrum, 2, 130, 100, 0)).to(dtype)
    exact = B.double().numpy()
    D = exact[1] - exact[0]
    mu = share * noise_edge(D[None])
    size = float(np.linalg.norm(D))
    for tolerance in (1e-6, Near(1e-3 * size)):
        found = two_checkpoints.anchored(B, 0, Scale(mu / 2, "absolute", "nuclear", (130, 100)), tolerance)
        best, delta = svt(D, mu), matrices(found)[1]
        apart = float(np.linalg.norm(delta - best)) / 2  # θ_0 = mean − S/2
        assert apart <= found.error + 1e-14 * size
        value, least = (
            np.sum((D - part) ** 2) / 2 + mu * np.linalg.norm(part, "nuc") for part in (delta, best)
        )
        assert value - least <= (found.gap + 1e-14) * value
        if isinstance(tolerance, Near):
            assert found.error <= tolerance.distance
        else:
            assert found.gap <= tolerance


@pytest.mark.parametrize("height", [1.5, 10.0, 40.0])
def test_a_crowd_of_singular_values_within_rounding_of_the_threshold(height: float) -> None:
    """In float32 squares cannot tell which of them lie above: what that costs is within the error."""
    rng = np.random.default_rng(0)
    sigma = np.concatenate([[height], np.ones(99) + 1e-6 * height])
    B = torch.from_numpy(with_spectrum(rng, 120, 100, sigma)).float() * torch.tensor([[[-0.5]], [[0.5]]])
    D = (B[1] - B[0]).double().numpy()
    found = two_checkpoints.anchored(B, 0, Scale(0.5, "absolute", "nuclear", (120, 100)), 1e-4)
    apart = np.linalg.norm(matrices(found)[1] - svt(D, 1.0)) / 2
    assert apart <= found.error <= 1e-5 * height


def test_nothing_has_empty_factors_of_the_right_shape() -> None:
    solution = two_checkpoints.no_task_vectors(torch.zeros(3, 7, 5), "zero")
    assert [delta.matrix().shape for delta in solution.deltas] == [(7, 5)] * 3
    assert not matrices(solution).any()
    assert (solution.edge, solution.solver) == (0.0, "zero")
