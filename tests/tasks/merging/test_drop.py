"""DARE's mask depends on seed, tensor, checkpoint and element, and on nothing else."""

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.merging.block import Block
from tasks.merging.drop import drop, survivors
from tasks.parameters.merge import DareParams
from tests.support import sparsifying_reference as reference

HALF = DareParams(p=0.5)
SIZE = 2**16


def block(delta: np.ndarray, start: int = 0) -> Block:
    return Block("layers.0.mlp", 0, start, [delta], None)


@given(st.integers(0, 300), st.integers(0, 300), st.floats(0, 1, exclude_max=True), st.integers(0, 2**64))
@settings(max_examples=60, deadline=None)
def test_the_mask_is_the_promised_stream(start: int, size: int, p: float, seed: int) -> None:
    """PCG64 DXSM seeded with SHA-256, from an implementation in Python integers; any part of it alone."""
    words = reference.stream(f"{seed}/2/w.ψ", start + size)[start:]
    expected = [word >= round(p * 2**32) for word in words]
    assert survivors(DareParams(p=p, seed=seed), "w.ψ", 2, start, size).tolist() == expected


def test_a_word_equal_to_the_bound_is_kept() -> None:
    """So that exactly round(p · 2³²) of the 2³² words drop their element."""
    (word,) = reference.stream("0/0/w", 1)
    assert survivors(DareParams(p=word / 2**32), "w", 0, 0, 1).tolist() == [True]
    assert survivors(DareParams(p=(word + 1) / 2**32), "w", 0, 0, 1).tolist() == [False]


def test_a_change_of_stream_is_noticed() -> None:
    """Far into a large tensor, where only a seekable stream gets in time."""
    mask = survivors(DareParams(p=0.9, seed=7), "lm_head.weight", 1, 10**12 + 1, SIZE)
    assert hashlib.sha256(np.packbits(mask)).hexdigest() == (
        "602a8c70b8a2c42c3c0afe1969148886a6a81f6894bb008effb45a26cf19476a"
    )


@pytest.mark.parametrize("p", [0.1, 0.5, 0.99])
def test_the_share_dropped_is_p(p: float) -> None:
    """Within five standard deviations."""
    dropped = SIZE - survivors(DareParams(p=p), "w", 0, 0, SIZE).sum()
    assert abs(dropped - p * SIZE) < 5 * (SIZE * p * (1 - p)) ** 0.5


@pytest.mark.parametrize(
    ("seed", "tensor", "checkpoint"), [(1, "w", 0), (0, "v", 0), (0, "w", 1), (0, "0/w", 0)]
)
def test_seed_tensor_and_checkpoint_each_give_a_mask_of_their_own(
    seed: int, tensor: str, checkpoint: int
) -> None:
    """Two fair masks agree on half of the elements, within five standard deviations."""
    one = survivors(HALF, "w", 0, 0, SIZE)
    other = survivors(DareParams(p=0.5, seed=seed), tensor, checkpoint, 0, SIZE)
    assert abs((one == other).sum() - SIZE / 2) < 5 * SIZE**0.5 / 2


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_kept_is_divided_by_exactly_the_share_kept(dtype: type) -> None:
    delta = np.random.default_rng(0).standard_normal((8, 32)).astype(dtype)
    dare = DareParams(p=0.3)
    dropped = drop(delta, dare, block(delta), 0)
    kept = survivors(dare, "layers.0.mlp", 0, 0, delta.size).reshape(delta.shape)
    assert dropped.dtype == dtype
    np.testing.assert_array_equal(dropped, np.where(kept, delta / dtype(1 - 0.3), 0))


def test_nothing_is_dropped_with_probability_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even a random number is drawn."""
    monkeypatch.setattr("tasks.merging.drop._stream", None)
    delta = np.ones((3, 2))
    np.testing.assert_array_equal(drop(delta, DareParams(p=0.0), block(delta), 0), delta)


def test_torch_tensors_lose_the_same_elements() -> None:
    delta = np.random.default_rng(0).standard_normal((5, 7))
    on_torch = drop(torch.from_numpy(delta), HALF, block(delta, 3), 4)
    assert isinstance(on_torch, torch.Tensor)
    np.testing.assert_array_equal(on_torch.numpy(), drop(delta, HALF, block(delta, 3), 4))


def test_each_checkpoint_may_have_a_probability_of_its_own() -> None:
    delta = np.ones((8, 5))
    both = DareParams(p=(0.0, 0.5))
    np.testing.assert_array_equal(drop(delta, both, block(delta), 0), delta)
    np.testing.assert_array_equal(drop(delta, both, block(delta), 1), drop(delta, HALF, block(delta), 1))
