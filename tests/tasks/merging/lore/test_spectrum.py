"""The scale of μ is that of full spectra, though only their leading part is looked at."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.merging.lore import krylov, spectrum, triplets
from tasks.merging.lore.penalty import LEADING, Scale
from tasks.merging.lore.problem import Near
from tests.support.lore_checks import DTYPES, on_devices
from tests.support.lore_matrices import SPECTRA, TRAJECTORIES, family, trajectory
from tests.support.lore_reference import Array, noise_edge

UNSHARP, HIDDEN = 0.06, 0.2
"""By how much the last triplet of a subspace may be too small; one that a Krylov space misses, too large."""
COLLAPSED = 1e-3
"""Edges below this share of σ_1 are rounding; what is taken instead is not this test's matter."""


def by_definition(B: Array, mu: float, unit: str) -> float:
    """Return μ from full spectra: of auto the edge, or what ⌈5 %⌉ exceed where that is larger."""
    sigma = np.linalg.svd(B, compute_uv=False)
    share = {"auto": LEADING, "rank": mu}.get(unit, 1.0)
    count = math.ceil(share * sigma.shape[1])
    following = float(sigma[:, count].max()) if count < sigma.shape[1] else 0.0
    return {
        "absolute": mu,
        "sigma1": mu * float(sigma.max()),
        "noise_edge": mu * noise_edge(B),
        "auto": mu * max(noise_edge(B), following),
        "rank": max(following, 3e-4 * float(sigma.max())),
    }[unit]


@on_devices
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("direct", [30, 1000])
@pytest.mark.parametrize("unit", ["absolute", "sigma1", "noise_edge", "auto", "rank"])
@pytest.mark.parametrize("kind", ["spikes", "power law", "flat", "outlier 1e4"])
def test_units_are_those_of_full_spectra(
    kind: str, unit: str, direct: int, dtype: torch.dtype, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (triplets, spectrum):
        monkeypatch.setattr(module, "DIRECT", direct)
    B = family(kind, 3, 120, 100, 0)
    mu = 0.04 if unit == "rank" else 0.8
    scale = Scale(mu, unit, "nuclear", (120, 100))  # type: ignore[arg-type]
    found = spectrum.look(torch.from_numpy(B).to(device, dtype), scale)
    near = UNSHARP if direct == 30 else 2e-3
    assert found.penalty.mu == pytest.approx(by_definition(B, mu, unit), rel=near)
    assert found.largest == pytest.approx(np.linalg.norm(B, 2, axis=(1, 2)).max(), rel=near)
    if unit == "rank" or (kind, unit) == ("power law", "auto"):  # all that was looked at lies above it
        assert found.edge >= (1 - near) * noise_edge(B)
    else:
        assert found.edge == pytest.approx(noise_edge(B), rel=near)


@given(
    kind=st.sampled_from([*TRAJECTORIES, *SPECTRA]),
    N=st.integers(3, 6),
    m=st.integers(1, 40),
    n=st.integers(1, 40),
    seed=st.integers(0, 99),
    mu=st.floats(1.0, 1.5),
    share=st.floats(0.01, 1.0),
)
@settings(max_examples=60, deadline=None)
def test_auto_leaves_five_percent_and_rank_its_share_above_the_threshold(
    kind: str, N: int, m: int, n: int, seed: int, mu: float, share: float
) -> None:
    """Of every deviation, rounded up to a whole number; but for rounding of a Gram matrix."""
    m, n = max(m, n), min(m, n)
    B = family(kind, N, m, n, seed) if kind in SPECTRA else trajectory(kind, N, m, n, seed)
    sigma = np.linalg.svd(B, compute_uv=False)
    for unit, given_mu, part in (("auto", mu, LEADING), ("rank", share, share)):
        found = spectrum.look(torch.from_numpy(B), Scale(given_mu, unit, "nuclear", (m, n))).penalty.mu  # type: ignore[arg-type]
        above = np.sum(sigma > found * (1 + 1e-5) + 1e-7 * sigma.max(), axis=1)
        assert above.max() <= math.ceil(part * n)
        if unit == "auto" and noise_edge(B) > COLLAPSED * sigma.max():  # no larger than it has to be
            assert found == pytest.approx(by_definition(B, mu, unit), rel=1e-5, abs=1e-6 * sigma.max())


@pytest.mark.parametrize("kind", TRAJECTORIES)
def test_beyond_direct_about_as_many_lie_above(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last triplet of a subspace is not sharp: μ is a little small, and μ = 1.05 makes up for it."""
    for module in (triplets, spectrum):
        monkeypatch.setattr(module, "DIRECT", 40)
    B = trajectory(kind, 3, 160, 140, 0)
    sigma = np.linalg.svd(B, compute_uv=False)
    auto = spectrum.look(torch.from_numpy(B).float(), Scale(1.05, "auto", "nuclear", (160, 140))).penalty.mu
    assert np.sum(sigma > auto, axis=1).max() <= math.ceil(LEADING * 140)
    ranked = spectrum.look(torch.from_numpy(B).float(), Scale(0.05, "rank", "nuclear", (160, 140))).penalty.mu
    exact = by_definition(B, 0.05, "rank")
    assert exact * (1 - UNSHARP) <= ranked <= exact * (1 + 1e-4)


@pytest.mark.parametrize("direct", [30, 1000])
def test_the_leading_triplets_that_are_handed_on_reach_below_the_threshold(
    direct: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the first pass would take what is missing for nothing."""
    for module in (triplets, spectrum):
        monkeypatch.setattr(module, "DIRECT", direct)
    B = family("spikes", 3, 120, 100, 0)
    for unit, mu in (("auto", 1.05), ("noise_edge", 1.05), ("rank", 0.05)):
        found = spectrum.look(torch.from_numpy(B), Scale(mu, unit, "nuclear", (120, 100)))  # type: ignore[arg-type]
        for b, part in zip(B, found.leading, strict=False):
            above = np.sum(np.linalg.svd(b, compute_uv=False) > found.penalty.mu * (1 + UNSHARP))
            assert part.rank >= above
    assert found.leading  # of rank, which needs no more than that many


def test_singular_values_are_those_of_numpy() -> None:
    A = family("spikes", 2, 30, 20, 0)[0]
    np.testing.assert_allclose(
        spectrum.singular(torch.from_numpy(A)), np.linalg.svd(A, compute_uv=False), rtol=1e-9
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("direct", [30, 1000])
@pytest.mark.parametrize("unit", ["auto", "rank"])
@pytest.mark.parametrize("kind", TRAJECTORIES)
def test_a_deep_look_has_the_same_scale_and_all_above_one_floor(
    kind: str, unit: str, direct: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a checkpoint near the mean few singular values are as large as those of one far from it.

    In Krylov spaces one among many that are hardly smaller may be missed.
    """
    for module in (triplets, spectrum):
        monkeypatch.setattr(module, "DIRECT", direct)
    B = trajectory(kind, 5, 140, 110, 0)
    mu = 0.04 if unit == "rank" else 0.8
    scale = Scale(mu, unit, "nuclear", (140, 110))  # type: ignore[arg-type]
    found = spectrum.look(torch.from_numpy(B).to(dtype), scale, Near(1e9))
    assert found.penalty.mu == pytest.approx(by_definition(B, mu, unit), rel=UNSHARP)
    assert found.leading
    floor = max(float(part.sigma[-1]) for part in found.leading)
    for part, b in zip(found.leading, B, strict=True):
        sigma = np.linalg.svd(b, compute_uv=False)
        assert part.rank >= np.sum(sigma > (1 + (HIDDEN if direct == 30 else UNSHARP)) * floor)


def among_noise(levels: Sequence[float], heights: Sequence[float]) -> Array:
    """Return 400 × 360 deviations: noise of a level each, and in the first spikes of so many of its edges."""
    rng, (m, n) = np.random.default_rng(0), (400, 360)
    B = np.stack([level * rng.standard_normal((m, n)) for level in levels])
    for height in heights:
        u, v = (x / np.linalg.norm(x) for x in (rng.standard_normal(m), rng.standard_normal(n)))
        B[0] += height * levels[0] * (m**0.5 + n**0.5) * np.outer(u, v)
    return B - B.mean(axis=0)


@pytest.mark.parametrize("unit", ["auto", "noise_edge"])
@pytest.mark.parametrize("heights", [[], [3.0, 3.0, 1.5], [100.0, 2.0]])
def test_what_lies_in_the_noise_is_not_looked_for(
    heights: Sequence[float], unit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spikes that stand out are enough to know where noise ends."""
    for module in (triplets, spectrum):
        monkeypatch.setattr(module, "DIRECT", 30)
    monkeypatch.setattr(krylov, "BLOCK", 4)
    monkeypatch.setattr(krylov.Largest, "is_met", None)
    B = among_noise([1.0] * 3, heights)
    found = spectrum.look(torch.from_numpy(B), Scale(1.05, unit, "nuclear", (400, 360)))  # type: ignore[arg-type]
    assert found.penalty.mu == pytest.approx(by_definition(B, 1.05, unit), rel=0.01)
    for part, b in zip(found.leading, B, strict=True):
        sigma = np.linalg.svd(b, compute_uv=False)
        assert part.rank == np.sum(sigma > found.penalty.mu) + 1
        np.testing.assert_allclose(part.sigma[:-1], sigma[: part.rank - 1], rtol=0.01)


@pytest.mark.parametrize(("unit", "near"), [("noise_edge", 1e-3), ("auto", UNSHARP)])
def test_noise_of_one_checkpoint_is_not_taken_for_that_of_all(
    unit: str, near: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where its own noise ends is far above where that of all together does: more is looked for, and sharply."""
    for module in (triplets, spectrum):
        monkeypatch.setattr(module, "DIRECT", 30)
    monkeypatch.setattr(krylov, "BLOCK", 4)
    B = among_noise([0.2, 0.2, 2.0], [])
    found = spectrum.look(torch.from_numpy(B), Scale(1.05, unit, "nuclear", (400, 360)))  # type: ignore[arg-type]
    assert found.penalty.mu == pytest.approx(by_definition(B, 1.05, unit), rel=near)


def test_a_plateau_does_not_stand_out_of_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many at 1.1 edges some are hidden for long: as many are found as are asked for."""
    for module in (triplets, spectrum):
        monkeypatch.setattr(module, "DIRECT", 30)
    monkeypatch.setattr(krylov, "BLOCK", 4)
    B = among_noise([1.0] * 3, [1.1] * 30)
    found = spectrum.look(torch.from_numpy(B), Scale(1.05, "auto", "nuclear", (400, 360)))
    assert max(part.rank for part in found.leading) > 18
    assert found.penalty.mu == pytest.approx(by_definition(B, 1.05, "auto"), rel=UNSHARP)
