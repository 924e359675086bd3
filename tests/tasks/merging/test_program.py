"""Programs that run together take the blocks they all need once, and each ends as it would have ended alone."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.base.measures import Averaged, LoreMeasures, WeightsUsed
from tasks.merging.block import Block
from tasks.merging.program import FamilyProgram, Program, together, worst
from tests.support.lore_measures_reference import EDGE, changed, measures, spiked

Lists = dict[str, list[Block]]


def blocks(*sizes: int) -> Lists:
    """Return tensors t0, t1, ... of so many blocks, all different."""
    return {
        f"t{i}": [Block(f"t{i}", 0, k, [np.full((1, 1), 10.0 * i + k)], None) for k in range(size)]
        for i, size in enumerate(sizes)
    }


def adding(rounds: int, factor: float) -> Program:
    """Sum the model in every round, blocks times `factor` and the sum before; merge into what came of it."""
    sums = [1.0]
    for _ in range(rounds):
        results = yield lambda block: factor * float(block.thetas[0][0, 0]) + sums[-1]
        sums.append(sum(sum(parts) for parts in results.values()))
    return lambda block: (block.thetas[0] * sums[-1], WeightsUsed(weights=tuple(sums)))


def run(program: FamilyProgram | Program, tensors: Lists) -> tuple[Any, int]:
    """Take a program to its end; return what it returns, and how often it saw the blocks."""
    rounds = 0
    try:
        measure = next(program)
        while True:
            rounds += 1
            measure = program.send({name: [measure(block) for block in own] for name, own in tensors.items()})
    except StopIteration as stop:
        return stop.value, rounds


@given(
    st.lists(st.tuples(st.integers(0, 4), st.floats(-2, 2)), min_size=1, max_size=5),
    st.lists(st.integers(1, 3), min_size=1, max_size=3),
)
@settings(max_examples=40)
def test_together_they_end_as_alone_in_the_rounds_of_the_longest(
    kinds: list[tuple[int, float]], sizes: list[int]
) -> None:
    tensors = blocks(*sizes)
    finish, rounds = run(together([adding(*kind) for kind in kinds]), tensors)
    assert rounds == max(count for count, _ in kinds)
    for block in (block for own in tensors.values() for block in own):
        alone = [run(adding(*kind), tensors)[0](block) for kind in kinds]
        assert list(finish(block)) == alone


def test_each_variant_is_computed_when_it_is_asked_for() -> None:
    computed: list[int] = []

    def noting(i: int) -> Program:
        return lambda block: (computed.append(i), None)  # type: ignore[return-value]
        yield

    finish, _ = run(together([noting(i) for i in range(3)]), {})
    merged = iter(finish(blocks(1)["t0"][0]))
    for i in range(3):
        assert computed == list(range(i))
        next(merged)
    assert computed == [0, 1, 2]


FROZEN, AVERAGED = Averaged(identical=True), Averaged(identical=False)
LATE = Averaged(identical=False, out_of_time=True)
SOLVED = measures(spiked(0), EDGE)


@pytest.mark.parametrize(
    ("blocks", "joined"),
    [
        ([None, None], None),
        ([FROZEN, FROZEN], FROZEN),
        ([FROZEN, AVERAGED, FROZEN], AVERAGED),
        ([FROZEN, SOLVED], SOLVED),
        ([SOLVED, AVERAGED, FROZEN], SOLVED),
        ([FROZEN, SOLVED, LATE, SOLVED], LATE),
        (
            [WeightsUsed(weights=(0.25, 0.75)), WeightsUsed(weights=(0.5, 0.5))],
            WeightsUsed(weights=(0.5, 0.75)),
        ),
    ],
)
def test_blocks_that_were_not_averaged_decide_for_a_tensor(blocks: list[Any], joined: Any) -> None:
    """One frozen expert of a stack does not make the stack identical, nor averaged."""
    assert worst(blocks) == joined


def test_of_each_number_the_largest_of_a_tensor_s_blocks_is_kept() -> None:
    one = changed(SOLVED, gap=0.1, ranks=[3, 1, 0], spectra=[[3.0, 1.0], [2.0], []], solver="dense")
    other = changed(SOLVED, gap=0.2, ranks=[1, 2, 0], spectra=[[2.0, 2.0], [2.5, 0.5], []], solver="passes")
    joined = worst([one, AVERAGED, other])
    expected = {"gap": 0.2, "ranks": (3, 2, 0), "spectra": ((3.0, 1.0), (2.5, 0.5), ()), "solver": "passes"}
    assert joined == SOLVED.model_copy(update=expected)
    assert joined == LoreMeasures.model_validate_json(joined.model_dump_json())
