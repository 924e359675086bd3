"""Looks are listed by the items they were at, with what they add up to."""

import pytest
from pydantic import ValidationError

from tasks.base.records.record import Interval
from tasks.registry.looks import Look
from tasks.reporting.looks_table import NO_LOOKS, looks_table

GAIN = Interval(mean=0.1, low=0.05, high=0.15)


def look(number: int, kind: str = "test", items: str = "a" * 64, **more: object) -> Look:
    asked = {"kind": kind, "items": items, "merge": str(number), "judgement": "j"}
    facts = {"number": number, "when": f"2026-11-{number:02}T03:00:00+00:00", "run": "run", "level": 0.025}
    return Look.model_validate({"asked": asked, **facts, **more})


def test_before_the_first_look_there_is_nothing_to_list() -> None:
    assert looks_table([]) == NO_LOOKS


def test_every_set_of_items_has_its_own_count_and_chance() -> None:
    looks = [look(n, decision="KEEP", gain=GAIN) for n in range(1, 10)]
    looks += [look(10, decision="PROMOTE", gain=GAIN), look(1, items="b" * 64)]
    first, second = looks_table(looks).split("\n\n")
    assert first.startswith("test aaaaaaaa\n")
    assert first.endswith("10 looks, 1 PROMOTE; at least one false PROMOTE with a chance of up to 22.4%")
    assert "+0.1 [0.05, 0.15]" in first
    assert second.startswith("test bbbbbbbb\n")
    assert "cut short" in second
    assert second.endswith("1 look, 0 PROMOTE; at least one false PROMOTE with a chance of up to 2.5%")


def test_a_vault_tells_when_the_test_items_promise_too_much() -> None:
    def vault(excesses: list[float]) -> str:
        return looks_table([look(n, "vault", excess=excess) for n, excess in enumerate(excesses, 1)])

    assert "worn out" in vault([0.1, 0.11, 0.12])
    assert "worn out" not in vault([0.1, -0.1, 0.02])
    assert "fresh items for it" in vault([0.0] * 10)
    assert "fresh items for it" not in vault([0.0] * 9)


@pytest.mark.parametrize("when", ["x", "", "2026-01-01", "2026-01-01T00:00:00", "9" * 5000])
def test_a_look_has_a_time_with_its_zone(when: str) -> None:
    with pytest.raises(ValidationError):
        look(1, when=when)


def test_no_name_controls_the_terminal() -> None:
    table = looks_table([look(1, run="\x1b[2J\u202e" + "x" * 10**6, items="\x1b[31m")])
    assert all(character.isprintable() for character in table.replace("\n", ""))
    assert len(table) < 1000
