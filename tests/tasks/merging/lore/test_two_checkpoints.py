"""Two checkpoints: nothing is solved from the mean; anchored, one thresholding in closed form."""

import numpy as np
import pytest
import torch

from tasks.merging.lore import dense, two_checkpoints
from tasks.merging.lore.penalty import Scale
from tasks.merging.lore.solve import solve
from tests.support.lore_checks import DTYPES, matrices, off, on_devices
from tests.support.lore_matrices import family
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
@pytest.mark.parametrize(("shape", "tolerance"), [((12, 9), 1e-3), ((9, 12), 1e-3), ((300, 200), 1e-3)])
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
    apart = float(np.linalg.norm(matrices(found)[1 - anchor] - expected))
    assert apart / 2 <= found.error  # θ_0 = mean − S/2
    assert apart <= tolerance * np.linalg.norm(exact[1] - exact[0])
    assert found.thresholds[1 - anchor] == pytest.approx(2 * mu)
    assert 0 <= found.gap <= 10 * tolerance


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


def test_only_the_squared_penalty_takes_a_whole_decomposition(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(two_checkpoints, "shrink", lambda *given: calls.append(1) or dense.shrink(*given))
    B = torch.from_numpy(family("spikes", 2, 250, 180, 0))
    edge = noise_edge(B.numpy())
    for mu, kind, decomposed in (
        (0.05, "squared", True),
        (edge, "nuclear", False),
        (0.2 * edge, "nuclear", False),
    ):
        calls.clear()
        two_checkpoints.anchored(B, 1, Scale(mu, "absolute", kind, (250, 180)))  # type: ignore[arg-type]
        assert bool(calls) == decomposed


def test_nothing_has_empty_factors_of_the_right_shape() -> None:
    solution = two_checkpoints.no_task_vectors(torch.zeros(3, 7, 5), "zero")
    assert [delta.matrix().shape for delta in solution.deltas] == [(7, 5)] * 3
    assert not matrices(solution).any()
    assert (solution.edge, solution.solver) == (0.0, "zero")
