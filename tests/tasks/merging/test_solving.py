"""Solves tell of their passes, and end at the next one when they are to stop or the time is over."""

import pytest

from tasks.merging.solving import MatrixProblem, OutOfTime, Solving, Stopped


def test_the_pass_of_every_solve_is_known_until_it_ends() -> None:
    solving = Solving()
    with solving.watched("a", None) as on_pass:
        assert solving.passes == {"a": 0}
        on_pass(7)
        with solving.watched("b", None):
            assert solving.passes == {"a": 7, "b": 0}
        assert solving.passes == {"a": 7}
    assert solving.passes == {}


def test_left_by_an_exception_it_ends_every_solve() -> None:
    solving = Solving()
    with solving.watched("a", None) as on_pass:
        with pytest.raises(KeyboardInterrupt), solving:
            raise KeyboardInterrupt
        with pytest.raises(Stopped):
            on_pass(2)
    with pytest.raises(Stopped), solving.watched("b", None):
        raise AssertionError
    assert solving.passes == {}


def test_left_well_it_ends_nothing() -> None:
    with (solving := Solving()):
        pass
    with solving.watched("a", None) as on_pass:
        on_pass(1)


def test_once_the_merge_is_old_enough_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    solving = Solving()
    with solving.watched("a", 1.5) as on_pass:
        now = 189.0
        on_pass(1)
        now = 191.0
        with pytest.raises(OutOfTime):
            on_pass(2)
    with solving.watched("b", 2.0), pytest.raises(OutOfTime), solving.watched("c", 1.5):
        raise AssertionError


def test_solutions_are_kept_for_another_merge_only_where_that_is_asked() -> None:
    problem = MatrixProblem("a", 0, (3, 4, 2), ())
    for keeps in (False, True):
        solving = Solving(keeps=keeps)
        solving.keep(problem, "found")
        assert solving.solved == ({problem: "found"} if keeps else {})
        assert Solving(solving.solved).solved == solving.solved
