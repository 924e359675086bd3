"""What a version keeps of the moves that it took part in: each once, and no more than MLflow has room for."""

import json

import pytest
from pydantic import ValidationError

from tasks.base.errors import BadInput
from tasks.parameters.registration import RegisterParams
from tasks.registry.alias_changes import NOTE, STORY_LIMIT, AliasChange, _story, alias_state, utc_now
from tasks.registry.store import connect


def a_move(token: str, why: str = "") -> AliasChange:
    return AliasChange(
        kind="rollback", token=token, version=1, over=2, previous=None, by="ann", when=utc_now(), why=why,
        evidence="", forced=False, place="here:/lock",
    )  # fmt: skip


def test_a_move_is_told_once_however_often_it_is_recorded() -> None:
    once = _story("[]", a_move("a", "first"))
    both = _story(once, a_move("b"))
    assert [move["token"] for move in json.loads(_story(once, a_move("a", "first")))] == ["a"]
    assert [move["token"] for move in json.loads(both)] == ["a", "b"]


def test_the_oldest_go_when_there_is_no_more_room() -> None:
    story = "[]"
    for number in range(120):
        story = _story(story, a_move(str(number), "w" * 1000))
    told = [move["token"] for move in json.loads(story)]
    assert len(story) <= STORY_LIMIT
    assert told == [str(number) for number in range(120 - len(told), 120)]
    assert len(told) > 50


@pytest.mark.parametrize("text", ["", "{", "[1]", "[{}]", "7", "[" * 10_000])
def test_a_history_that_somebody_wrote_into_begins_anew(text: str) -> None:
    assert [entry["token"] for entry in json.loads(_story(text, a_move("a")))] == ["a"]


def test_a_damaged_note_is_named_with_the_remedy(store: RegisterParams) -> None:
    client = connect(store)
    client.create_registered_model("demo")
    client.set_registered_model_tag("demo", f"{NOTE}x", "{")
    with pytest.raises(BadInput, match="demo: a tag loreline.promotion.* delete the tag"):
        alias_state(client, "demo")


@pytest.mark.parametrize("when", ["x", "", "2026-01-01", "2026-01-01T00:00:00", "\x1b[2J"])
def test_a_change_has_a_time_with_its_zone(when: str) -> None:
    facts = {"kind": "promotion", "token": "t", "version": 2, "over": 1, "previous": None, "by": "a", "when": when,
             "why": "", "evidence": "", "forced": False, "place": "host:/lock"}  # fmt: skip
    with pytest.raises(ValidationError):
        AliasChange.model_validate(facts)
