"""The identities of docs/mathematics.md."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.lore_checks import absolute, matrices, off
from tests.support.lore_matrices import family
from tests.support.lore_reference import Array, minimise, noise_edge, svt

SHAPES = [(14, 10), (6, 17), (60, 4)]


def spiked(N: int, m: int = 14, n: int = 10, seed: int = 0) -> tuple[Array, float]:
    """Return deviations and a threshold at which some, not all, singular values are active."""
    B = family("spikes", N, m, n, seed)
    return B, 0.8 * noise_edge(B)


@pytest.mark.parametrize("N", [3, 4])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_start_does_not_matter(N: int, shape: tuple[int, int]) -> None:
    """Whatever θ_0 descent starts from, here one wild and of low rank, it ends at the same task vectors."""
    B, mu = spiked(N, *shape)
    rng = np.random.default_rng(1)
    wild = 1e3 * np.outer(rng.standard_normal(shape[0]), rng.standard_normal(shape[1]))
    elsewhere = minimise(B, mu, gap=1e-12, start=wild).deltas
    assert off(matrices(absolute(B, mu)), elsewhere) < 1e-4


@given(order=st.permutations(range(5)), seed=st.integers(0, 9))
@settings(max_examples=10, deadline=None)
def test_the_order_of_checkpoints_permutes_their_task_vectors(order: list[int], seed: int) -> None:
    B, mu = spiked(5, seed=seed)
    assert off(matrices(absolute(B[order], mu)), matrices(absolute(B, mu))[order]) < 1e-4


@pytest.mark.parametrize("kind", ["nuclear", "squared"])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_problem_is_odd_scales_with_its_data_and_can_be_turned(kind: str, shape: tuple[int, int]) -> None:
    B, mu = spiked(3, *shape)
    mu, scaled = (mu, 3 * mu) if kind == "nuclear" else (0.02, 0.02)
    deltas = matrices(absolute(B, mu, kind))
    assert off(matrices(absolute(-B, mu, kind)), -deltas) < 1e-4
    assert off(matrices(absolute(3 * B, scaled, kind)), 3 * deltas) < 1e-4
    turned = matrices(absolute(np.ascontiguousarray(B.transpose(0, 2, 1)), mu, kind))
    assert off(turned.transpose(0, 2, 1), deltas) < 1e-4


@pytest.mark.parametrize("shape", [(14, 10), (60, 4)])
def test_rotating_rows_and_columns_rotates_the_task_vectors(shape: tuple[int, int]) -> None:
    B, mu = spiked(3, *shape)
    P, Q = (np.linalg.qr(np.random.default_rng(k).standard_normal((k, k)))[0] for k in shape)
    assert off(matrices(absolute(P @ B @ Q, mu)), P @ matrices(absolute(B, mu)) @ Q) < 1e-4


@pytest.mark.parametrize("N", [3, 5, 10])
def test_theta_0_is_a_spectral_huber_location(N: int) -> None:
    """Σ Clip_μ(θ_i − θ_0) = 0 at θ_0 = mean − S/N; so S = N (mean − θ_0)."""
    B, mu = spiked(N)
    deltas = matrices(absolute(B, mu))
    z = -deltas.sum(axis=0) / N
    clips = np.stack([b - z - svt(b - z, mu) for b in B])
    assert np.linalg.norm(clips.sum(axis=0)) < 1e-4 * np.linalg.norm(deltas.sum(axis=0))
    assert off(deltas, np.stack([svt(b - z, mu) for b in B])) < 1e-4


def test_one_column_is_a_soft_threshold_of_lengths() -> None:
    """δ_i = v·max(1 − μ/‖v‖, 0), v = θ_i − θ_0."""
    B, mu = spiked(4, 12, 1)
    deltas = matrices(absolute(B, mu))
    for b, delta in zip(B, deltas, strict=True):
        v = b + deltas.sum(axis=0) / 4
        assert np.linalg.norm(delta - v * max(1 - mu / np.linalg.norm(v), 0)) < 1e-4 * np.linalg.norm(v)


def test_a_large_threshold_leaves_the_mean_and_a_small_one_almost_everything() -> None:
    B, mu = spiked(3)
    assert not matrices(absolute(B, 1e3 * mu)).any()
    small = absolute(B, 0.02 * mu, tolerance=1e-4)
    z = -matrices(small).sum(axis=0) / 3
    # mean_i ‖Clip‖_2 ≤ μ: what is left of every checkpoint is at most μ in each direction
    left = B - z - matrices(small)
    assert max(np.linalg.norm(one, 2) for one in left) < 0.03 * mu
    assert off(matrices(small), B - z) < 0.05


def test_repeating_every_checkpoint_changes_no_task_vector() -> None:
    B, mu = spiked(3)
    assert off(matrices(absolute(np.concatenate([B, B]), mu))[:3], matrices(absolute(B, mu))) < 1e-4
