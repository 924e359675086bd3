"""TSV-M and Iso-C against full SVDs by numpy, with the polar factor by scipy."""

import numpy as np
import pytest
from scipy.linalg import polar

from tasks.base.measures import IsoCMeasures, MethodMeasures, TsvMMeasures
from tasks.parameters.merge import MergeParams
from tests.support.in_memory import merge
from tests.support.trajectory_models import SHAPES, Model, trajectory

METHODS = ["tsv_m", "iso_c"]


def run(method: str, models: list[Model], base: Model, lam: float | None = None) -> tuple[Model, dict]:
    return merge(MergeParams(method=method, lam=lam), models, base)


def tsv_m(deltas: list[np.ndarray]) -> np.ndarray:
    """Full SVDs, the first 1/N of each, side by side, both sides to their polar factor."""
    share = max(1, min(deltas[0].shape) // len(deltas))
    parts = [np.linalg.svd(delta, full_matrices=False) for delta in deltas]
    U = np.concatenate([U[:, :share] for U, _, _ in parts], 1)
    S = np.concatenate([S[:share] for _, S, _ in parts])
    V = np.concatenate([Vt[:share].T for _, _, Vt in parts], 1)
    return polar(U)[0] @ np.diag(S) @ polar(V)[0].T


def iso_c(deltas: list[np.ndarray]) -> np.ndarray:
    U, S, Vt = np.linalg.svd(sum(deltas), full_matrices=False)
    return S.mean() * U @ Vt


def reference(method: str, deltas: list[np.ndarray]) -> np.ndarray:
    if deltas[0].ndim == 1:
        return np.mean(deltas, axis=0)
    one = {"tsv_m": tsv_m, "iso_c": iso_c}[method]
    if deltas[0].ndim == 3:
        return np.stack([one([delta[i] for delta in deltas]) for i in range(len(deltas[0]))])
    return one([delta.reshape(len(delta), -1) for delta in deltas]).reshape(deltas[0].shape)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("name", SHAPES)
def test_tau_is_that_of_the_paper(method: str, count: int, name: str) -> None:
    base, models = trajectory(count)
    merged, _ = run(method, models, base, lam=0.7)
    tau = reference(method, [model[name] - base[name] for model in models])
    np.testing.assert_allclose(merged[name], base[name] + 0.7 * tau, atol=1e-9)


def test_one_checkpoint_alone_has_no_interference_to_remove() -> None:
    base, models = trajectory(1)
    merged, _ = run("tsv_m", models, base)
    for name in SHAPES:
        np.testing.assert_allclose(merged[name], models[0][name], atol=1e-9)


def orthonormal(n: int, count: int, seed: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((n, count)))[0]


def one(method: str, deltas: list[np.ndarray]) -> tuple[np.ndarray, MethodMeasures | None]:
    zero = np.zeros_like(deltas[0])
    merged, measures = run(method, [{"w": delta} for delta in deltas], {"w": zero})
    return merged["w"], measures["w"]


def test_task_vectors_in_orthogonal_subspaces_are_added_up() -> None:
    """Nothing interferes, and rank two of nine is within the third that each may keep."""
    U, V = orthonormal(12, 6, 0), orthonormal(9, 6, 1)
    deltas = [U[:, i : i + 2] @ np.diag([3.0, 1.0]) @ V[:, i : i + 2].T for i in (0, 2, 4)]
    tau, measures = one("tsv_m", deltas)
    np.testing.assert_allclose(tau, sum(deltas), atol=1e-12)
    assert measures == TsvMMeasures(ranks=(2, 2, 2))


@pytest.mark.parametrize("shape", [(12, 6), (6, 12)])
def test_identical_task_vectors_of_low_rank_are_not_counted_twice(shape: tuple[int, int]) -> None:
    """U has dependent columns: what the SVD returns for their directions is arbitrary, and must not show."""
    U, V = orthonormal(shape[0], 2, 0), orthonormal(shape[1], 2, 1)
    delta = U @ np.diag([3.0, 1.0]) @ V.T
    tau, _ = one("tsv_m", [delta, delta])
    np.testing.assert_allclose(tau, delta, atol=1e-12)


def test_a_checkpoint_that_did_not_move_changes_nothing_but_its_share_of_the_rank() -> None:
    deltas = [np.random.default_rng(0).standard_normal((8, 6)), np.zeros((8, 6))]
    tau, measures = one("tsv_m", deltas)
    U, S, Vt = np.linalg.svd(deltas[0], full_matrices=False)
    np.testing.assert_allclose(tau, (U[:, :3] * S[:3]) @ Vt[:3], atol=1e-12)
    assert measures == TsvMMeasures(ranks=(3, 0))


def test_more_checkpoints_than_columns_keep_one_direction_each() -> None:
    deltas = [np.random.default_rng(seed).standard_normal((7, 2)) for seed in range(4)]
    tau, measures = one("tsv_m", deltas)
    np.testing.assert_allclose(tau, tsv_m(deltas), atol=1e-9)
    assert measures == TsvMMeasures(ranks=(1, 1, 1, 1))


def test_iso_c_has_one_singular_value_and_keeps_their_sum() -> None:
    deltas = [np.random.default_rng(seed).standard_normal((8, 5)) for seed in range(3)]
    tau, measures = one("iso_c", deltas)
    spectrum = np.linalg.svd(tau, compute_uv=False)
    np.testing.assert_allclose(spectrum, np.linalg.svd(sum(deltas), compute_uv=False).mean())
    assert measures.sigma == pytest.approx(spectrum[0])
    assert measures.rank == 5


def test_iso_c_invents_no_directions_where_nothing_moved() -> None:
    """Rank one of four columns: σ/4 along it, and nothing along the three that the SVD would make up."""
    U, V = orthonormal(6, 1, 0), orthonormal(4, 1, 1)
    tau, measures = one("iso_c", [U @ V.T, 3 * U @ V.T])
    np.testing.assert_allclose(tau, U @ V.T, atol=1e-12)
    assert isinstance(measures, IsoCMeasures)
    assert (measures.sigma, measures.rank) == (pytest.approx(1.0), 1)


@pytest.mark.parametrize("method", METHODS)
def test_nothing_moved_is_the_base(method: str) -> None:
    base, _ = trajectory(1)
    merged, _ = run(method, [base] * 3, base)
    for name in SHAPES:
        np.testing.assert_array_equal(merged[name], base[name])
