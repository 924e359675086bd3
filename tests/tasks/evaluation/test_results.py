"""A result is complete, and its metrics are found by their short names."""

import pytest
from pydantic import ValidationError

from tasks.base.errors import BadInput
from tasks.evaluation.results import TaskResult, full_name


def make(values, items=("a", "b"), better=None):
    better = better or dict.fromkeys(values, True)
    return TaskResult(task="t", items=items, values=values, higher_is_better=better)


@pytest.mark.parametrize(
    "broken",
    [
        {"values": {"acc": (1.0,)}},
        {"values": {"acc": (1.0, float("nan"))}},
        {"values": {"acc": (1.0, float("inf"))}},
        {"values": {"acc": (1.0, 0.0)}, "better": {"nll": False}},
    ],
    ids=["short", "nan", "inf", "direction"],
)
def test_what_does_not_fit_together_is_no_result(broken):
    with pytest.raises(ValidationError):
        make(**broken)


def test_the_full_name_is_found_from_the_short_one():
    results = {"t": make({"em,strict": (1.0, 1.0), "em,loose": (1.0, 1.0), "acc": (0.0, 0.0)})}
    assert full_name(results, "t/em", "k") == "t/em,strict"
    assert full_name(results, "t/em,loose", "k") == "t/em,loose"
    assert full_name(results, "t/acc", "k") == "t/acc"


@pytest.mark.parametrize("name", ["t/e", "t/em,other", "u/acc", "t"])
def test_other_names_are_refused_with_what_there_is(name):
    with pytest.raises(BadInput, match=f"^k: no task reports {name}; take one of t/em,strict$"):
        full_name({"t": make({"em,strict": (1.0, 1.0)})}, name, "k")
