"""The units of μ; the noise edge is where noise ends."""

import numpy as np
import pytest
import torch

from tasks.merging.lore.penalty import Deviations, Scale, noise_edge, values
from tests.support.lore_matrices import edge, family
from tests.support.lore_reference import Array, deviations
from tests.support.lore_reference import noise_edge as by_definition


def known(B: Array, leading: int | None = None) -> Deviations:
    return Deviations([np.linalg.svd(b, compute_uv=False)[:leading] for b in B], float(np.sum(B**2)))


def noise(N: int, m: int, n: int, seed: int = 0) -> Array:
    return deviations(np.random.default_rng(seed).standard_normal((N, m, n)))


@pytest.mark.parametrize("N", [2, 3, 8])
def test_the_edge_is_where_the_singular_values_of_noise_end(N: int) -> None:
    """B_i = θ_i − mean has √(1 − 1/N) of the noise of θ_i, and the edge carries that factor once."""
    B = 0.01 * noise(N, 200, 120)
    found = noise_edge(known(B), (200, 120))
    assert found == pytest.approx(0.01 * edge(200, 120) * np.sqrt(1 - 1 / N), rel=0.01)
    assert found == pytest.approx(np.linalg.norm(B, 2, axis=(1, 2)).max(), rel=0.05)


@pytest.mark.parametrize("spectrum", ["spikes", "power law", "outlier 1e4", "flat"])
@pytest.mark.parametrize("shape", [(150, 100), (40, 60), (300, 7), (1, 30)])
def test_the_edge_is_that_of_the_definition(spectrum: str, shape: tuple[int, int]) -> None:
    B = family(spectrum, 3, *shape, 0)
    assert noise_edge(known(B), shape) == pytest.approx(by_definition(B), rel=1e-9)


def test_spikes_do_not_raise_the_edge_and_leading_singular_values_suffice() -> None:
    B = noise(3, 150, 100)
    clean = noise_edge(known(B), (150, 100))
    spiked = deviations(B + np.array([50.0, 0.0, 0.0])[:, None, None])
    assert noise_edge(known(spiked), (150, 100)) == pytest.approx(clean, rel=0.02)
    assert noise_edge(known(spiked, leading=3), (150, 100)) == noise_edge(known(spiked), (150, 100))


def test_without_noise_the_edge_is_that_of_the_whole_energy() -> None:
    """Exactly low-rank deviations, as of adapters: what is left below the spikes is rounding."""
    B = family("rank one", 3, 60, 40, 0)
    whole = np.sqrt(np.mean(B**2)) * edge(60, 40)
    assert noise_edge(known(B), (60, 40)) == pytest.approx(whole, rel=1e-9)


def test_the_edge_of_a_core_is_counted_over_the_full_matrix() -> None:
    B = family("low rank", 3, 12, 12, 0)
    expected = np.sqrt(np.sum(B**2) / (3 * 500 * 400)) * edge(500, 400)
    assert noise_edge(known(B), (500, 400)) == pytest.approx(expected, rel=1e-9)


def test_nothing_has_no_edge_and_no_largest_singular_value() -> None:
    zero = np.zeros((3, 5, 4))
    assert noise_edge(known(zero), (5, 4)) == 0.0
    assert Deviations([np.zeros(0)], 0.0).largest == 0.0


def test_units_are_what_they_say() -> None:
    B = family("spikes", 4, 30, 20, 0)
    expected = {
        "absolute": 1.0,
        "sigma1": np.linalg.norm(B, 2, axis=(1, 2)).max(),
        "noise_edge": by_definition(B),
    }
    for unit, size in expected.items():
        penalty, found = Scale(0.3, unit, "nuclear", (30, 20)).penalty(known(B))  # type: ignore[arg-type]
        assert penalty.mu == pytest.approx(0.3 * size, rel=1e-9)
        assert penalty.kind == "nuclear"
        assert found == pytest.approx(by_definition(B), rel=1e-9)


def test_values_are_float64_numpy() -> None:
    found = values(torch.tensor([2.0, 1.0], dtype=torch.float32, requires_grad=True))
    assert found.dtype == np.float64
    assert found.tolist() == [2.0, 1.0]


@pytest.mark.timeout(20)
def test_rounding_beneath_the_spikes_is_no_endless_search() -> None:
    """Energy less spikes is rounding, of either sign: an edge made of it rises again once more are counted."""
    rng = np.random.default_rng(0)
    for _ in range(1000):
        spikes = np.sort(rng.uniform(1, 20, (3, rng.integers(1, 5))))[:, ::-1]
        rounding = np.sort(np.abs(rng.standard_normal((3, 8))))[:, ::-1] * 10.0 ** rng.uniform(-16, -12)
        energy = float(np.sum(spikes**2)) * (1 + rng.integers(-3, 4) * 1e-16)
        found = Deviations(list(np.hstack([spikes, rounding])), energy)
        whole = np.sqrt(energy / (3 * 26 * 20)) * edge(26, 20)
        assert noise_edge(found, (26, 20)) == pytest.approx(whole, rel=1e-9)
