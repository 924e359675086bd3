"""Norms, cosines and conflict equal their definitions, in blocks and joined from tensors to the model."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tasks.base.measures import DeviationSummary
from tasks.merging.block import Block
from tasks.merging.deviation import deviation
from tasks.merging.deviation_sums import Deviation, describe, join, recall
from tests.support.deviation_reference import each_tensor, reference

INTEGERS = arrays(np.float64, st.tuples(st.integers(1, 4), st.just(6)), elements=st.integers(-3, 3))


def models(values: np.ndarray, split: int) -> list[dict[str, np.ndarray]]:
    return [{"a": row[:split], "b": row[split:]} for row in values]


@settings(max_examples=60, deadline=None)
@given(INTEGERS, arrays(np.float64, 6, elements=st.integers(-1, 1)), st.integers(1, 5))
def test_blocks_add_up_to_what_the_whole_tensor_is(thetas: np.ndarray, base: np.ndarray, split: int) -> None:
    cuts = (slice(0, split), slice(split, 6))
    blocks = [Block("a", 0, c.start, [theta[c, None] for theta in thetas], base[c, None]) for c in cuts]
    found = describe(join([deviation(block) for block in blocks]))
    for key, value in reference([{"a": theta} for theta in thetas], {"a": base}, ["a"]):
        assert getattr(found, key) == pytest.approx(value), key


@settings(max_examples=60, deadline=None)
@given(INTEGERS, arrays(np.float64, 6, elements=st.integers(-1, 1)), st.integers(1, 5))
def test_what_merge_json_says_of_tensors_is_enough_for_the_model(
    thetas: np.ndarray, base: np.ndarray, split: int
) -> None:
    """The model's cosines come from summed inner products, not from averaged cosines."""
    checkpoints, (origin,) = models(thetas, split), models(base[None], split)
    tensors = each_tensor(checkpoints, origin)
    found = describe(join([recall(summary) for summary in tensors.values()]))
    for key, value in reference(checkpoints, origin, ["a", "b"]):
        assert getattr(found, key) == pytest.approx(value, abs=1e-12), key


def test_a_sample_stands_for_the_whole() -> None:
    """Of a tensor whose parts are alike, half of it says all but the number of elements."""
    rng = np.random.default_rng(0)
    half, base = rng.normal(size=(3, 50, 2)), rng.normal(size=(50, 2))
    whole = describe(
        deviation(Block("a", 0, 0, list(np.concatenate([half, half], 1)), np.tile(base, (2, 1))))
    )
    found = describe(deviation(Block("a", 0, 0, list(half), base)), 200)
    assert found.sampled == 100
    for key in ("norms", "anchor", "cosines", "conflict", "elements"):
        assert getattr(found, key) == pytest.approx(getattr(whole, key)), key
    assert describe(recall_and_join(found)).norms == pytest.approx(whole.norms)


def recall_and_join(summary: DeviationSummary) -> Deviation:
    return join([recall(summary)])
