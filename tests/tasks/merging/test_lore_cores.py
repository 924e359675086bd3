"""Cores of several tensors merge together as each does alone."""

from collections.abc import Mapping, Sequence
from unittest import mock

import numpy as np
import pytest

from tasks.base.measures import Averaged, LoreMeasures
from tasks.merging.block import Block
from tasks.merging.lore import together
from tasks.merging.lore_method import family, on_cores
from tasks.merging.program import FamilyFinish, FamilyProgram, Merged, Settings, run_program
from tasks.merging.solving import Solving
from tasks.parameters.merge import MergeParams
from tests.support.lore_matrices import trajectory
from tests.support.lore_reference import Array

Cores = Mapping[str, Sequence[Array]]
KINDS = ("falling", "strong", "plateau", "deficient", "bfloat16")
FULL = (300, 200)


def cores(kinds: Sequence[str] = KINDS, N: int = 3) -> Cores:
    """Return cores of several shapes."""
    return {
        kind: [0.1 * i + own for i, own in enumerate(trajectory(kind, N, 24 + k, 20 + 3 * k, k))]
        for k, kind in enumerate(kinds)
    }


def variants_of(given: Cores, *params: MergeParams) -> list[Settings]:
    solving, shapes = Solving(), dict.fromkeys(given, FULL)
    count = len(next(iter(given.values())))
    return [
        Settings(own, lambda tensor, own=own: own, range(count), shapes, solving=solving)  # type: ignore[misc]
        for own in params
    ]


def params(lam: float | None = None, **lore: object) -> MergeParams:
    return MergeParams.model_validate({"method": "lore", "lam": lam, "lore": lore})


def merged(program: FamilyProgram, given: Cores) -> dict[str, list[Merged]]:
    def block(name: str) -> Block:
        return Block(name, 0, 0, given[name], None)

    finish: FamilyFinish = run_program(program, list(given), block)
    return {name: list(finish(block(name))) for name in given}


def test_what_comes_out_is_what_each_gives_alone() -> None:
    given = cores()
    alone, found = (merged(way(variants_of(given, params(0.0))), given) for way in (family, on_cores))
    for name, own in given.items():
        [(one, measures)], [(other, expected)] = found[name], alone[name]
        assert isinstance(measures, LoreMeasures)
        assert isinstance(expected, LoreMeasures)
        spread = np.linalg.norm(own - np.mean(own, axis=0)) / 3**0.5
        assert np.linalg.norm(one - other) <= 2 * spread / 256
        assert measures.threshold == pytest.approx(expected.threshold, rel=1e-9)
        assert measures.edge == pytest.approx(expected.edge, rel=1e-9)
        assert measures.active == expected.active
        assert measures.error is not None


def test_all_tensors_are_solved_at_once_and_variants_that_ask_the_same_share_that() -> None:
    """Those that differ in λ alone. Each has the bytes that it has alone."""
    given, asked = cores(), [params(0.1), params(0.2), params(0.1, mu=2.0)]
    with mock.patch.object(together, "solve_together", wraps=together.solve_together) as solved:
        found = merged(on_cores(variants_of(given, *asked)), given)
    assert [len(call.args[0]) for call in solved.call_args_list] == [len(given)] * 2
    alone = merged(family(variants_of(given, *asked)), given)
    for name, own in found.items():
        spread = np.linalg.norm(given[name] - np.mean(given[name], axis=0)) / 3**0.5
        for (one, _), (other, _) in zip(own, alone[name], strict=True):
            assert np.linalg.norm(one - other) <= 3 * spread / 256
    for i, own in enumerate(asked):
        by_itself = merged(on_cores(variants_of(given, own)), given)
        for name, [(one, _)] in by_itself.items():
            np.testing.assert_array_equal(one, found[name][i][0])


@pytest.mark.parametrize(
    ("asked", "N"),
    [
        (params(), 2),
        (params(passes=2), 3),
        (params(penalty="squared", mu=0.1, mu_scale="absolute"), 3),
        (params(tolerance=1e-6), 3),
    ],
)
def test_what_cannot_be_solved_together_is_solved_alone(asked: MergeParams, N: int) -> None:
    given = cores(("falling", "plateau"), N)
    with mock.patch.object(together, "solve_together", side_effect=AssertionError):
        found = merged(on_cores(variants_of(given, asked)), given)
    alone = merged(family(variants_of(given, asked)), given)
    for name in given:
        np.testing.assert_array_equal(found[name][0][0], alone[name][0][0])


def test_what_takes_too_many_passes_is_solved_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    given = cores()
    monkeypatch.setattr(together, "MOST_PASSES", 1)
    found, alone = (merged(way(variants_of(given, params())), given) for way in (on_cores, family))
    for name in given:
        np.testing.assert_array_equal(found[name][0][0], alone[name][0][0])


def test_a_flat_minimum_is_solved_beside_others() -> None:
    given = cores(("drift", "falling"), 4)
    found = merged(on_cores(variants_of(given, params(0.0, mu=0.5, mu_scale="sigma1"))), given)
    assert all(isinstance(own, LoreMeasures) for [(_, own)] in found.values())


def test_cores_without_a_difference_stay_as_they_are() -> None:
    given = {**cores(("falling",)), "frozen": [np.arange(6.0).reshape(3, 2)] * 3}
    [(core, measures)] = merged(on_cores(variants_of(given, params())), given)["frozen"]
    np.testing.assert_array_equal(core, given["frozen"][0])
    assert measures == Averaged(identical=True)


def test_when_time_is_over_all_are_averaged() -> None:
    given = cores()
    found = merged(on_cores(variants_of(given, params(time_limit=1e-9))), given)
    for name, [(core, measures)] in found.items():
        np.testing.assert_allclose(core, np.mean(given[name], axis=0), atol=1e-12)
        assert measures == Averaged(identical=False, out_of_time=True)
