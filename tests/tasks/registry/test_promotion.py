"""A promotion or rollback cut short anywhere is completed or reverted; two machines never move one half each."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.parameters.params import Params
from tasks.parameters.registration import RegisterParams
from tasks.promote_version import promote_version, roll_back
from tasks.registry import promotion
from tasks.registry.alias_changes import AliasChange, alias_state, note_change, utc_now
from tasks.registry.promotion import carry_out, reconcile
from tasks.registry.store import connect
from tasks.registry.versions import Contended, aliases, version_of
from tests.support.killing import kill, spawn
from tests.support.promotions import promotable, register

ROOT = Path(__file__).parents[3]
SEED = int(os.environ.get("SEED", "0"))
WRITES = (
    "set_registered_model_tag",
    "delete_registered_model_tag",
    "set_registered_model_alias",
    "delete_registered_model_alias",
    "set_model_version_tag",
)
Do = Callable[[Params], object]


class Killed(BaseException):
    """Nothing catches it, as nothing catches SIGKILL."""


@pytest.fixture
def params(store: RegisterParams, tmp_path: Path) -> Params:
    """Register merges that get 60, 75 and 90 of 100 items right."""
    found = promotable(tmp_path, store)
    for right in (60, 75, 90):
        register(found, tmp_path / f"merge-{right}", right)
    return found


def promote(version: int, force: bool = False) -> Do:
    return lambda params: promote_version(params, version, "ann", "because", force)


def rollback(params: Params) -> object:
    return roll_back(params.register_, "ann", "it swears")


def tags_of(params: Params) -> dict[int, dict[str, str]]:
    client = connect(params.register_)
    return {number: dict(version_of(client, "demo", number).tags) for number in (1, 2, 3)}


def restore(params: Params, pointing: dict[str, int], tags: dict[int, dict[str, str]]) -> None:
    """Bring aliases and tags back to what they were."""
    client = connect(params.register_)
    for alias in aliases(client, "demo").keys() - pointing.keys():
        client.delete_registered_model_alias("demo", alias)
    for alias, number in pointing.items():
        client.set_registered_model_alias("demo", alias, str(number))
    for number, present in tags_of(params).items():
        for key in present.keys() - tags[number].keys():
            client.delete_model_version_tag("demo", str(number), key)
        for key, value in tags[number].items():
            if present.get(key) != value:
                client.set_model_version_tag("demo", str(number), key, value)


def state(params: Params) -> Any:
    """Return what the registry says, without what differs from one time to the next."""
    told = {}
    for number, tags in tags_of(params).items():
        story = [
            (move["kind"], move["version"], move["over"])
            for move in json.loads(tags.get("loreline.promotions", "[]"))
        ]
        told[number] = (
            story,
            {
                key: value
                for key, value in tags.items()
                if key not in ("loreline.promotions", "loreline.promoted_at")
            },
        )
    return aliases(connect(params.register_), "demo"), told


@pytest.mark.parametrize(
    ("before", "act"),
    [
        ([], promote(1)),
        pytest.param([promote(1), promote(3)], promote(2, force=True), marks=pytest.mark.slow),
        ([promote(1), promote(2)], rollback),
    ],
    ids=["first", "third, by force", "rollback"],
)
def test_killed_after_any_write_it_is_completed_or_reverted(
    params: Params, monkeypatch: pytest.MonkeyPatch, before: list[Do], act: Do
) -> None:
    from mlflow import MlflowClient

    for step in before:
        step(params)
    pointing, tags, was = aliases(connect(params.register_), "demo"), tags_of(params), state(params)
    act(params)
    becomes = state(params)
    work = {method: getattr(MlflowClient, method) for method in WRITES}
    left = 0

    def dying(method: str) -> Callable[..., None]:
        def write(*args: Any, **kwargs: Any) -> None:
            nonlocal left
            work[method](*args, **kwargs)
            left -= 1
            if left == 0:
                raise Killed

        return write

    ended, writes = [], 0
    while True:
        restore(params, pointing, tags)
        writes += 1
        left = writes
        with monkeypatch.context() as patched:
            for method in WRITES:
                patched.setattr(MlflowClient, method, dying(method))
            try:
                act(params)
                break
            except Killed:
                pass
        reconcile(params.register_)
        assert state(params) in (was, becomes), writes
        ended.append(state(params) == becomes)
        assert alias_state(connect(params.register_), "demo").moves == []
        if ended == [False]:  # What was reverted can be done again.
            act(params)
            assert state(params) == becomes
    assert sorted(ended) == ended  # From one write on it is completed, before that reverted.
    assert set(ended) == {False, True}
    assert state(params) == becomes


DIES = """
import os, signal, sys
from mlflow import MlflowClient
from tasks.parameters.params import Params
from tasks.promote_version import promote_version
move = MlflowClient.set_registered_model_alias
def die(client, name, alias, version):
    move(client, name, alias, version)
    if alias == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)
MlflowClient.set_registered_model_alias = die
promote_version(Params.model_validate_json(sys.argv[1]), 2, "ann", "because")
"""


def test_kill_9_between_aliases_and_tags_is_completed_by_the_next_promotion(params: Params) -> None:
    promote(1)(params)
    command = [sys.executable, "-c", DIES, params.model_dump_json(by_alias=True), "champion"]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == -signal.SIGKILL
    assert "loreline.promoted_by" not in tags_of(params)[2]
    again = promote_version(params, 2, "bob", "again")
    assert again.sentence == "models:/demo/2 is champion already"
    assert tags_of(params)[2]["loreline.promoted_by"] == "ann"
    assert aliases(connect(params.register_), "demo") == {
        "challenger": 3,
        "champion": 2,
        "previous-champion": 1,
    }


def a_move(token: str, version: int, over: int, place: str) -> AliasChange:
    return AliasChange(
        kind="promotion", token=token, version=version, over=over, previous=None, by="zoe", when=utc_now(),
        why="", evidence="", forced=False, place=place,
    )  # fmt: skip


def test_a_move_under_way_on_another_machine_is_left_alone(
    params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(promotion, "RIVAL_WAIT_S", 0.2)
    monkeypatch.setattr("tasks.promote_version.PAUSE_S", (0, 0))
    promote(1)(params)
    client = connect(params.register_)
    note_change(client, "demo", a_move("0", 3, 1, "elsewhere:/lock"))
    client.set_registered_model_alias("demo", "previous-champion", "1")
    assert reconcile(params.register_) == []
    with pytest.raises(
        Contended, match="demo: zoe is moving champion on elsewhere; run the same command again"
    ):
        promote(2)(params)
    assert len(alias_state(client, "demo").moves) == 1
    monkeypatch.setattr(promotion, "CHANGE_LEASE_S", 0)  # It fell silent.
    assert reconcile(params.register_) == [
        "demo: the promotion of version 3 by zoe was cut short and has been undone"
    ]
    assert aliases(client, "demo") == {"challenger": 3, "champion": 1}


def test_of_two_machines_that_meet_the_higher_token_withdraws(params: Params) -> None:
    """The lower one waits for it, and then finds the champion where it expects it."""
    promote(1)(params)
    client = connect(params.register_)
    low, high = a_move("a", 2, 1, "one:/lock"), a_move("b", 3, 1, "other:/lock")
    note_change(client, "demo", low)
    with pytest.raises(Contended):
        carry_out(client, "demo", high)
    assert alias_state(client, "demo").moves == [low]
    carry_out(client, "demo", low)
    assert aliases(client, "demo") == {"challenger": 3, "champion": 2, "previous-champion": 1}
    with pytest.raises(Contended, match="the champion changed meanwhile"):
        carry_out(client, "demo", high)
    assert alias_state(client, "demo").moves == []
    assert "loreline.promoted_by" not in tags_of(params)[3]


def test_a_writer_that_keeps_no_notes_is_noticed(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody moves champion in MLflow's own pages at the same moment: nothing is recorded, nothing half."""
    from mlflow import MlflowClient

    promote(1)(params)
    move = MlflowClient.set_registered_model_alias

    def interfere(client: MlflowClient, name: str, alias: str, version: str) -> None:
        move(client, name, alias, "3" if alias == "champion" else version)

    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", interfere)
    client = connect(params.register_)
    with pytest.raises(Contended, match="the alias champion went to version 3 meanwhile, not 2"):
        carry_out(client, "demo", a_move("a", 2, 1, "one:/lock"))
    assert aliases(client, "demo") == {"challenger": 3, "champion": 3, "previous-champion": 1}
    assert alias_state(client, "demo").moves == []
    assert "loreline.promoted_by" not in tags_of(params)[2]


@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_thirty_kills_of_a_promotion(params: Params) -> None:
    """Killed at random moments, it is completed or reverted by whoever comes next."""
    import mlflow  # noqa: F401 (children are forked, and find it imported)

    def in_a_child(act: Callable[[], object]) -> None:
        child = spawn(act)
        child.join()
        assert child.exitcode == 0

    def check() -> None:
        reconcile(params.register_)
        now = aliases(connect(params.register_), "demo")
        assert now.get("champion") in (None, 1, 2, 3), now
        assert now.get("champion") != now.get("previous-champion"), now
        assert alias_state(connect(params.register_), "demo").moves == []

    moment, kills = random.Random(SEED), 0
    begun = time.monotonic()
    in_a_child(lambda: promote(1)(params))
    lasts = time.monotonic() - begun
    while kills < 30:
        version = moment.choice([1, 2, 3])
        child = spawn(promote(version, force=True), params)
        child.join(moment.uniform(0, lasts))
        kills += child.exitcode is None
        kill(child)
        in_a_child(check)
    in_a_child(lambda: promote(3, force=True)(params))

    def end() -> None:
        assert aliases(connect(params.register_), "demo")["champion"] == 3
        for number, tags in tags_of(params).items():
            story = json.loads(tags.get("loreline.promotions", "[]"))
            assert len({move["token"] for move in story}) == len(story), number

    in_a_child(end)
    print(f"promotions: {kills} kills, seed {SEED}: each completed or reverted")
