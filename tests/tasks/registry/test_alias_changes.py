"""What a version keeps of the moves that it took part in: each once, and no more than MLflow has room for."""

import json

from tasks.registry.alias_changes import STORY_LIMIT, AliasChange, _story, utc_now


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
