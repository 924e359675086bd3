"""Selection by magnitude equals a full sort, whatever the blocks."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.merging.arrays import Array
from tasks.merging.block import Block
from tasks.merging.magnitude import Group, leading
from tests.support import sparsifying_reference as reference
from tests.support.driving import drive

KINDS = {
    "ties": lambda rng, n: rng.integers(-3, 4, n).astype(float),
    "continuous": lambda rng, n: rng.standard_normal(n),
    "one magnitude": lambda rng, n: rng.choice([-0.75, 0.75], n),
    "one upper half": lambda rng, n: 1 + rng.integers(0, 9, n) * 2.0**-23,
    "all scales": lambda rng, n: rng.standard_normal(n) * 10.0 ** rng.integers(-44, 38, n),
    "zeros": lambda rng, n: np.zeros(n),
}


def cut(tensor: str, deltas: list[Array], size: int) -> list[Block]:
    """Cut task vectors, the differences from zero, into blocks of `size` elements."""
    return [
        Block(tensor, 0, start, [delta[start : start + size].reshape(-1, 1) for delta in deltas], 0.0)
        for start in range(0, len(deltas[0]), size)
    ]


def select(
    models: dict[str, list[Array]], groups: list[Group], size: int
) -> dict[str, list[list[np.ndarray]]]:
    """Return tensor → checkpoint → rank → mask."""
    blocks = {name: cut(name, deltas, size) for name, deltas in models.items()}
    count = len(next(iter(models.values())))
    leaders, _ = drive(leading(groups, lambda block: block.deltas), blocks)
    return {
        name: [
            [
                np.concatenate(parts).reshape(-1)
                for parts in zip(*(leaders(b, i, b.deltas[i]) for b in own), strict=True)
            ]
            for i in range(count)
        ]
        for name, own in blocks.items()
    }


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_the_leaders_are_those_of_a_sort(kind: str, data: st.DataObject) -> None:
    """For every rank from none to all, two at once, other ones for each checkpoint, float32 and float64."""
    n, count = data.draw(st.integers(1, 70)), data.draw(st.integers(1, 3))
    ranks = st.lists(st.integers(0, n), min_size=1, max_size=2)
    each = data.draw(st.lists(ranks, min_size=count, max_size=count))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    dtype = data.draw(st.sampled_from([np.float32, np.float64]))
    deltas = [KINDS[kind](rng, n).astype(dtype) for _ in range(count)]
    found = select({"w": deltas}, [Group(["w"], each)], data.draw(st.integers(1, n)))["w"]
    for delta, own, masks in zip(deltas, each, found, strict=True):
        for rank, mask in zip(own, masks, strict=True):
            np.testing.assert_array_equal(mask, reference.leading(delta, rank))


@pytest.mark.parametrize("kind", KINDS)
def test_torch_tensors_give_the_same_leaders(kind: str) -> None:
    delta = KINDS[kind](np.random.default_rng(1), 50)
    found = select({"w": [torch.from_numpy(delta)]}, [Group(["w"], [[20, 33]])], 7)["w"]
    np.testing.assert_array_equal(found[0], [reference.leading(delta, 20), reference.leading(delta, 33)])


@pytest.mark.parametrize(("kind", "size"), [("ties", 1), ("ties", 4), ("ties", 100), ("continuous", 4)])
def test_a_group_ranks_its_tensors_together_in_its_order(kind: str, size: int) -> None:
    """Tensors outside the group, and the order of the blocks' tensors, change nothing."""
    rng = np.random.default_rng(2)
    a, b, c = (KINDS[kind](rng, n) for n in (9, 20, 11))
    found = select({"a": [a], "b": [b], "c": [c]}, [Group(["c", "a"], [[8]]), Group(["b"], [[3]])], size)
    np.testing.assert_array_equal(
        np.concatenate([found["c"][0][0], found["a"][0][0]]), reference.leading(np.concatenate([c, a]), 8)
    )
    np.testing.assert_array_equal(found["b"][0][0], reference.leading(b, 3))


def test_measurements_stay_small() -> None:
    """The engine holds those of a whole model at once: 2 % of the float32 task vectors."""
    delta = KINDS["continuous"](np.random.default_rng(3), 2**18)
    blocks = {"w": cut("w", [delta], 2**18)}
    _, (coarse, fine) = drive(leading([Group(["w"], [[2**16]])], lambda block: block.deltas), blocks)
    tallies = [coarse["w"][0][0], fine["w"][0][1][0][0]]
    assert sum(array.nbytes for tally in tallies for array in tally) < 4 * delta.size / 50
