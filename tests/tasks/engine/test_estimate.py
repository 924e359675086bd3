"""How much of a merge is left follows from what was foretold and the pace seen since."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.engine.estimate import BEGINS_S, CORE_SIDE, NOMINAL_S, TimeEstimate, duration, nominal
from tasks.merge_checkpoints import plan_directories
from tasks.parameters.merge import MergeParams
from tests.support.engine_runs import params_for, plan_for, write_noise


def test_every_matrix_has_its_time_in_proportion_to_its_work(tmp_path: Path) -> None:
    """Rows × columns × min(rows, columns) for each matrix of a stack; a convolution is out × (in · k)."""
    shapes = {"a": (40, 30), "b": (30, 40), "stack": (5, 40, 30), "conv": (40, 10, 3, 1), "v": (7,)}
    plan = plan_for(params_for("lore"), write_noise(tmp_path, shapes))
    found = nominal(plan, ["cpu"])
    assert found is not None
    assert found.seconds.keys() == shapes.keys() - {"v"}
    unit = found.seconds["a"]
    assert [found.seconds[name] / unit for name in ("b", "stack", "conv")] == pytest.approx([1, 5, 1])


def test_adapters_take_their_time_for_bases_and_cores(
    adapter_family: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    """Which grow with the square of their ranks together; PEFT writes an embedding beside its factors."""
    base, adapters = adapter_family
    alone = nominal(plan_directories({tmp_path / "out": MergeParams(method="lore")}, adapters), ["cpu"])
    onto = plan_directories({tmp_path / "out": MergeParams(method="lore", base=str(base))}, adapters)
    on_base = nominal(onto, ["cpu"])
    assert alone is not None
    assert on_base is not None
    assert alone.seconds.keys() >= on_base.seconds.keys() & onto.spanned
    for name in on_base.seconds.keys() & onto.spanned:
        k, (rows, columns) = 2 + 3 + 1, onto.shapes[name]
        cores = 3 * CORE_SIDE * min(k, rows) * min(k, columns)
        expected = pytest.approx(NOMINAL_S * (k * k * (rows + columns) + cores))
        assert expected == alone.seconds[name] == on_base.seconds[name]
    # adapters on a base say of every tensor what they add, of most nothing
    assert not any(sum(onto.ranks(name)) for name in onto.spanned - on_base.seconds.keys())


@given(st.lists(st.floats(0.1, 50), min_size=1, max_size=20), st.integers(1, 8), st.floats(0.3, 3))
def test_what_is_left_follows_the_pace(seconds: list[float], threads: int, pace: float) -> None:
    """It lies between what was expected and what the pace seen so far makes of it."""
    names = [str(i) for i in range(len(seconds))]
    expected = TimeEstimate(dict(zip(names, seconds, strict=True)), threads, 3, at_least=False)
    assert expected.remaining(names, names, 0.0) == pytest.approx(expected.total)
    for done in range(1, len(names)):
        rest = sum(seconds[done:]) / threads
        left = expected.remaining(names, names[done:], pace * sum(seconds[:done]) / threads)
        assert min(rest, pace * rest) * (1 - 1e-9) <= left <= max(rest, pace * rest) * (1 + 1e-9)
    assert expected.remaining(names, [], 5.0) == 0


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (99, "99 s"), (150, "2 min"), (5400, "90 min"), (9000, "2.5 h")]
)
def test_times_are_said_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_what_is_left_is_said_in_words() -> None:
    expected = TimeEstimate({"a": 40.0, "b": 80.0}, 2, 1, at_least=True)
    assert str(expected) == f"at least {duration(BEGINS_S + 60)}"
    assert expected.left(["a", "b"], ["a", "b"], 0.0) == "at least 60 s left"
    assert expected.left(["a", "b"], ["b"], 200.0) == f"about {duration(40 * (90 + 200) / (90 + 20))} left"
