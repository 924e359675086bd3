"""Stage promote: judged against the champion of now, verified, recorded for ever, and reversible."""

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks import promote_version as stage
from tasks.base.errors import BadInput
from tasks.base.records.registration import Registration
from tasks.parameters.params import Params
from tasks.parameters.registration import RegisterParams
from tasks.promote_version import Declined, promote_if_auto, promote_version, refuse, roll_back
from tasks.registry.store import connect
from tasks.registry.versions import aliases, version_of
from tests.support.promotions import promotable, register

Register = Callable[..., int]


@pytest.fixture
def params(store: RegisterParams, tmp_path: Path) -> Params:
    return promotable(tmp_path, store)


@pytest.fixture
def add(params: Params, tmp_path: Path) -> Register:
    """Register a merge with so many of 100 items right, in a directory of that name."""
    return lambda right, name="": register(params, tmp_path / f"merge-{right}{name}", right)


def now(params: Params) -> dict[str, int]:
    found = aliases(connect(params.register_), params.register_.name)
    return {alias: number for alias, number in found.items() if alias != "challenger"}


def tags(params: Params, version: int) -> dict[str, str]:
    return version_of(connect(params.register_), params.register_.name, version).tags


def test_promotion_moves_champion_keeps_the_former_and_says_why(params: Params, add: Register) -> None:
    add(60), add(80)
    first = promote_version(params, 1, "ann@host", "first model")
    assert first.sentence.startswith("champion: models:/demo/1 (there was none before), PROMOTE: likely/acc")
    second = promote_version(params, None, "bob@host", "better")
    assert (second.version, second.over, second.moved) == (2, 1, True)
    assert "over champion v1 (100 items)" in second.sentence
    assert now(params) == {"champion": 2, "previous-champion": 1}
    found = tags(params, 2)
    assert found["loreline.promoted_by"] == "bob@host"
    assert found["loreline.promoted_why"] == "better"
    assert found["loreline.promoted_over"] == "1"
    assert found["loreline.promoted_at"].endswith("+00:00")
    assert tags(params, 1)["loreline.promoted_over"] == "none"
    assert "loreline.forced" not in found
    evidence = json.loads(found["loreline.promoted_evidence"])
    assert (evidence["verdict"], evidence["against"], evidence["gain"]["mean"]) == (
        "PROMOTE",
        "champion",
        0.2,
    )
    assert (evidence["merge"], evidence["champion"]) == (
        found["loreline.merge"],
        tags(params, 1)["loreline.merge"],
    )
    told = [
        (move["kind"], move["version"], move["over"])
        for move in json.loads(tags(params, 1)["loreline.promotions"])
    ]
    assert told == [("promotion", 1, None), ("promotion", 2, 1)]
    again = promote_version(params, 2, "eve", "")
    assert (again.moved, again.sentence) == (False, "models:/demo/2 is champion already")
    assert tags(params, 2) == found


def test_what_was_better_than_its_checkpoints_is_not_promoted_over_a_better_champion(
    params: Params, add: Register
) -> None:
    """The recorded verdict is PROMOTE; the one of now is not."""
    add(90), add(70)
    assert tags(params, 2)["loreline.verdict"] == "PROMOTE"
    promote_version(params, 1, "ann", "")
    with pytest.raises(
        Declined, match=r"models:/demo/2: KEEP: likely/acc worsens by 0\.2 .* against champion v1"
    ):
        promote_version(params, 2, "ann", "")
    assert now(params) == {"champion": 1}
    assert "loreline.promoted_by" not in tags(params, 2)


def test_force_needs_a_reason_and_stays_on_record(params: Params, add: Register) -> None:
    add(90), add(70), add(98)
    promote_version(params, 1, "ann", "")
    with pytest.raises(BadInput, match="--why: empty; say why"):
        promote_version(params, 2, "ann", " ", force=True)
    forced = promote_version(params, 2, "ann", "the other one swears", force=True)
    assert "(was 1), FORCED, KEEP: likely/acc worsens" in forced.sentence
    roll_back(params.register_, "ann", "mistake")
    assert now(params) == {"champion": 1, "previous-champion": 2}
    assert tags(params, 2)["loreline.forced"] == "the other one swears"
    assert json.loads(tags(params, 2)["loreline.promoted_evidence"])["verdict"] == "KEEP"
    assert "loreline.forced" not in tags(params, promote_version(params, 3, "ann", "", force=False).version)


def test_rollback_goes_back_and_a_second_one_returns(params: Params, add: Register) -> None:
    add(60), add(80)
    promote_version(params, 1, "ann", "")
    with pytest.raises(BadInput, match="demo: no other version has the alias previous-champion"):
        roll_back(params.register_, "ann", "")
    promote_version(params, 2, "ann", "")
    back = roll_back(params.register_, "ann", "it swears")
    assert back.sentence == "champion: models:/demo/1 (was 2), rolled back"
    assert now(params) == {"champion": 1, "previous-champion": 2}
    last = json.loads(tags(params, 2)["loreline.promotions"])[-1]
    assert (last["kind"], last["by"], last["why"], last["over"]) == ("rollback", "ann", "it swears", 2)
    roll_back(params.register_, "ann", "it did not")
    assert now(params) == {"champion": 2, "previous-champion": 1}


def test_a_rollback_to_files_that_changed_is_refused(params: Params, add: Register, tmp_path: Path) -> None:
    add(60), add(80)
    promote_version(params, 1, "ann", ""), promote_version(params, 2, "ann", "")
    (tmp_path / "merge-60" / "merged" / "model.safetensors").write_bytes(b"rotten")
    with pytest.raises(BadInput, match=r"model\.safetensors: changed"):
        roll_back(params.register_, "ann", "")
    assert now(params) == {"champion": 2, "previous-champion": 1}


def test_changed_file_is_named_and_no_alias_moves(params: Params, add: Register, tmp_path: Path) -> None:
    add(60), add(80)
    promote_version(params, 1, "ann", "")
    (tmp_path / "merge-80" / "merged" / "model.safetensors").write_bytes(b"rotten")
    for force in (False, True):
        with pytest.raises(BadInput, match=r"model\.safetensors: changed, .* promote another version"):
            promote_version(params, 2, "ann", "because", force)
    assert now(params) == {"champion": 1}


def test_a_pending_push_blocks_even_by_force(params: Params, add: Register) -> None:
    add(60)
    client = connect(params.register_)
    client.set_model_version_tag("demo", "1", "loreline.push", "pending")
    for force in (False, True):
        with pytest.raises(Declined, match="its DVC push is pending; run loreline run again when the remote"):
            promote_version(params, 1, "ann", "because", force)
    assert now(params) == {}
    client.set_model_version_tag("demo", "1", "loreline.push", "done")
    assert promote_version(params, 1, "ann", "").moved


def test_what_cannot_be_promoted_is_bad_input(params: Params, add: Register, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="demo: no version has the alias challenger; run loreline register"):
        promote_version(params, None, "ann", "")
    add(60)
    with pytest.raises(BadInput, match="demo version 9: not in the registry"):
        promote_version(params, 9, "ann", "")
    with pytest.raises(BadInput, match="--by: empty"):
        promote_version(params, 1, "", "")
    unknown = params.evaluate.model_copy(update={"primary": "likely/f1"})
    with pytest.raises(BadInput, match="evaluate.primary: likely does not report f1"):
        promote_version(params.model_copy(update={"evaluate": unknown}), 1, "ann", "")
    connect(params.register_).create_model_version("demo", (tmp_path / "theirs").as_uri())
    with pytest.raises(
        BadInput, match="demo version 2: has no recorded evaluation; register it with Loreline"
    ):
        promote_version(params, 2, "ann", "", force=False)
    assert now(params) == {}


def automatic(params: Params) -> Params:
    return params.model_copy(update={"register_": params.register_.model_copy(update={"promote": "auto"})})


def promoted_by_itself(params: Params, version: int) -> str:
    found = tags(params, version)
    registration = Registration(
        name="demo", version=version, model_id="", run_id="", digest=found["loreline.merge"], aliases=()
    )
    promotion = promote_if_auto(automatic(params), registration)
    assert promotion is not None
    assert promote_if_auto(params, registration) is None  # register.promote: manual
    return promotion.sentence


def test_auto_promotes_what_is_better_than_the_champion_of_now(params: Params, add: Register) -> None:
    add(60), add(80), add(70), add(30)
    assert promoted_by_itself(params, 1).startswith("champion: models:/demo/1 (there was none before)")
    assert promoted_by_itself(params, 1) == "not promoted: it is champion already"
    assert promoted_by_itself(params, 2).startswith("champion: models:/demo/2 (was 1), PROMOTE")
    assert promoted_by_itself(params, 3).startswith("not promoted: models:/demo/3: KEEP")
    assert promoted_by_itself(params, 4) == "not promoted: its verdict is KEEP"
    assert now(params) == {"champion": 2, "previous-champion": 1}
    assert tags(params, 2)["loreline.promoted_by"] == "register.promote: auto"


def test_auto_does_not_undo_what_people_decided(params: Params, add: Register) -> None:
    add(60), add(80), add(90)
    promoted_by_itself(params, 1), promoted_by_itself(params, 2)
    roll_back(params.register_, "ann", "it swears")
    assert promoted_by_itself(params, 2) == "not promoted: it was champion before and was replaced"
    assert refuse(params.register_, 3, "ann", "too slow") == "models:/demo/3 refused by ann: too slow"
    assert promoted_by_itself(params, 3) == "not promoted: it was refused"
    assert now(params) == {"champion": 1, "previous-champion": 2}
    assert json.loads(tags(params, 3)["loreline.refused"])["why"] == "too slow"


def test_two_promotions_at_once_one_wins_and_the_other_is_judged_again(
    params: Params, add: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both judged against version 1; the loser is the winner's equal, so it stays what it is."""
    add(60), add(80, "a"), add(80, "b")
    promote_version(params, 1, "ann", "")
    both_judged, judge = threading.Barrier(2), stage.judge_again

    def judge_together(params: Params, version: int | None) -> object:
        judgement = judge(params, version)
        assert judgement.champion is not None
        if judgement.champion.version == 1:
            both_judged.wait(60)
        return judgement

    monkeypatch.setattr(stage, "judge_again", judge_together)
    said: dict[int, str] = {}

    def attempt(version: int) -> None:
        try:
            said[version] = promote_version(params, version, "ann", "").sentence
        except Declined as declined:
            said[version] = str(declined)

    threads = [threading.Thread(target=attempt, args=(version,)) for version in (2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winner = now(params)["champion"]
    loser = 5 - winner
    assert said[winner].startswith(f"champion: models:/demo/{winner} (was 1), PROMOTE")
    assert said[loser].startswith(f"models:/demo/{loser}: KEEP")
    assert f"over champion v{winner}" in said[loser]
    assert now(params) == {"champion": winner, "previous-champion": 1}
    assert "loreline.promoted_by" not in tags(params, loser)
