"""Averages, SLERP and Model Stock against mergekit 0.1.5 in float32: where they agree, and each deviation."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from mergekit.merge_methods.base import TensorBatch, TensorGroup
from mergekit.merge_methods.registry import get

from tasks.parameters.merge import MergeParams
from tests.support.in_memory import merge

SHAPES = [(10,), (8, 5), (2, 3, 10)]


def loreline(
    params: dict[str, Any], thetas: Sequence[np.ndarray], base: np.ndarray | None = None
) -> np.ndarray:
    given = MergeParams.model_validate(params)
    own_base = None if base is None else {"w": base}
    merged, _ = merge(given, [{"w": theta} for theta in thetas], own_base, rows=2, dtype=np.float32)
    assert merged["w"].dtype == np.float32
    return merged["w"]


def batched(method: str, thetas: Sequence[np.ndarray], **parameters: Any) -> np.ndarray:
    batch = TensorBatch([torch.from_numpy(theta)[None] for theta in thetas], base_index=0)
    return get(method).merge_batch(batch, **parameters)[0].numpy()


def grouped(method: str, thetas: Sequence[np.ndarray], base: np.ndarray, **parameters: Any) -> np.ndarray:
    merger = get(method)
    group = TensorGroup.from_tensors([torch.from_numpy(array) for array in (base, *thetas)], base_index=0)
    defaults = {spec.name: spec.default for spec in merger.spec.parameters}
    return merger.merge_group(group, **defaults | parameters).numpy()


def each(values: Sequence[float]) -> dict[int, float]:
    """Parameters by mergekit's numbering, the base being 0."""
    return dict(enumerate(values, start=1))


def random(shape: tuple[int, ...], count: int = 3, moved: float = 1.0) -> tuple[list[np.ndarray], np.ndarray]:
    """Checkpoints that share half of what they moved from the base."""
    rng = np.random.default_rng(0)
    base, drift = rng.standard_normal((2, *shape), np.float32)
    noise = rng.standard_normal((count, *shape), np.float32)
    return [base + np.float32(moved) * (drift + own) for own in noise], base


def assert_close(ours: np.ndarray, theirs: np.ndarray) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_linear_agrees(shape: tuple[int, ...]) -> None:
    thetas, weights = random(shape)[0], [1.0, 0.5, 2.5]
    theirs = batched("linear", thetas, weight=torch.tensor([weights]), normalize=True)
    assert_close(loreline({"method": "average", "weights": weights}, thetas), theirs)


@pytest.mark.parametrize("shape", SHAPES)
def test_task_arithmetic_agrees(shape: tuple[int, ...]) -> None:
    (thetas, base), weights = random(shape), [0.5, -0.25, 1.0]
    ours = loreline({"method": "task_arithmetic", "weights": weights, "lam": 0.6}, thetas, base)
    theirs = grouped(
        "task_arithmetic", thetas, base, weight=each(weights), density=each([1.0] * 3), **{"lambda": 0.6}
    )
    assert_close(ours, theirs)


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("moved", [1.0, 1e-3])
def test_slerp_agrees_along_the_arc_and_the_line(shape: tuple[int, ...], t: float, moved: float) -> None:
    thetas, _ = random(shape, 2, moved)
    theirs = batched("slerp", thetas, t=torch.tensor([t]))
    assert_close(loreline({"method": "slerp", "slerp": {"t": t}}, thetas), theirs)


def test_mergekit_turns_towards_a_tiny_vector_where_only_zero_has_no_direction_for_us() -> None:
    """Below a norm of 1e-8 it does not divide, so the cosine it sees is 0; ours has the true angle."""
    first = np.array([3.0, 4.0], np.float32)
    tiny = first * np.float32(1e-10)
    ours = loreline({"method": "slerp", "slerp": {"t": 0.5}}, [first, tiny])
    assert_close(ours, 0.5 * first)
    assert_close(batched("slerp", [first, tiny], t=torch.tensor([0.5])), np.sin(np.pi / 4) * first)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", [2, 4])
def test_model_stock_agrees(shape: tuple[int, ...], count: int) -> None:
    thetas, base = random(shape, count)
    assert_close(loreline({"method": "model_stock"}, thetas, base), grouped("model_stock", thetas, base))


def test_mergekit_loses_task_vectors_with_norms_below_a_thousandth() -> None:
    """It holds the product of two norms above 1e-6; the angle, and so the merge, should not change with scale."""
    base = np.zeros(2, np.float32)
    deltas = np.array([[1, 0.5], [1, 1]], np.float32)
    far = loreline({"method": "model_stock"}, list(deltas), base)
    near = np.float32(1e-5) * deltas
    ours = loreline({"method": "model_stock"}, list(near), base)
    theirs = grouped("model_stock", list(near), base)
    np.testing.assert_allclose(ours, 1e-5 * far, rtol=1e-5)
    assert np.linalg.norm(theirs) < 1e-3 * np.linalg.norm(ours)


def test_mergekit_leaves_the_base_backwards_where_task_vectors_oppose_each_other() -> None:
    base, deltas = np.zeros(2, np.float32), np.array([[1, 0], [-0.5, 0.5]], np.float32)
    np.testing.assert_array_equal(loreline({"method": "model_stock"}, list(deltas), base), base)
    assert grouped("model_stock", list(deltas), base) @ deltas.mean(0) < 0
