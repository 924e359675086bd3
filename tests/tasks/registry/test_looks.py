"""Every look is counted once, whoever looks, and whatever is killed in between."""

import subprocess
import sys
from pathlib import Path

import pytest

from tasks.base.errors import BadInput
from tasks.base.records.record import Interval
from tasks.parameters.registration import RegisterParams
from tasks.registry.looks import Asked, begin_look, looks_of, write_look
from tasks.registry.store import connect

ITEMS, OTHERS = "a" * 64, "b" * 64
LOOKS = """
import sys
from tasks.parameters.registration import RegisterParams
from tasks.registry.looks import Asked, begin_look
from tasks.registry.store import connect
client = connect(RegisterParams(name="demo"))
for i in range(4):
    asked = Asked(kind="test", items="a" * 64, merge=f"{sys.argv[1]} {i}", judgement="j")
    begin_look(client, "demo", asked, "run", lambda number: 0.025)
"""


def asked(merge: str, items: str = ITEMS, judgement: str = "j") -> Asked:
    return Asked(kind="test", items=items, merge=merge, judgement=judgement)


def level(number: int) -> float:
    return 0.1 / number


def test_looks_are_counted_for_each_set_of_items(store: RegisterParams) -> None:
    client = connect(store)
    assert looks_of(client, "demo") == []
    numbers = [
        begin_look(client, "demo", asked(merge, items), "run", level).number
        for merge, items in [("x", ITEMS), ("y", ITEMS), ("x", OTHERS), ("z", ITEMS)]
    ]
    assert numbers == [1, 2, 1, 3]
    assert [look.level for look in looks_of(client, "demo")] == [0.1, 0.05, 0.1, 0.1 / 3]


def test_the_same_question_again_is_the_same_look(store: RegisterParams) -> None:
    """With its first number and level, however many looks came after it; another bound is another look."""
    client = connect(store)
    first = begin_look(client, "demo", asked("x"), "run", level)
    begin_look(client, "demo", asked("y"), "run", level)
    assert begin_look(client, "demo", asked("x"), "run", level) == first
    assert begin_look(client, "demo", asked("x", judgement="other"), "run", level).number == 3


def test_what_it_decided_stands_beside_it(store: RegisterParams) -> None:
    client = connect(store)
    look = begin_look(client, "demo", asked("x"), "run", level)
    ended = look.model_copy(update={"decision": "KEEP", "gain": Interval(mean=0.1, low=-0.1, high=0.3)})
    write_look(client, "demo", ended)
    assert looks_of(client, "demo") == [ended]
    assert begin_look(client, "demo", asked("x"), "run", level) == ended


@pytest.mark.slow
def test_processes_that_look_at_once_are_all_counted(store: RegisterParams, own_state: Path) -> None:
    running = [subprocess.Popen([sys.executable, "-c", LOOKS, f"process {i}"]) for i in range(3)]
    assert [process.wait() for process in running] == [0, 0, 0]
    assert sorted(look.number for look in looks_of(connect(store), "demo")) == list(range(1, 13))


def test_tags_that_are_no_looks_are_left_alone(store: RegisterParams) -> None:
    client = connect(store)
    begin_look(client, "demo", asked("x"), "run", level)
    client.set_registered_model_tag("demo", "loreline.promotion.a", "{}")
    client.set_registered_model_tag("demo", "their", "own")
    assert len(looks_of(client, "demo")) == 1


def test_a_record_that_somebody_changed_is_named(store: RegisterParams) -> None:
    client = connect(store)
    client.create_registered_model("demo")
    client.set_registered_model_tag("demo", "loreline.look.a.b", "{")
    with pytest.raises(BadInput, match=r"demo: tag loreline\.look\.a\.b: is no record of a look"):
        looks_of(client, "demo")
