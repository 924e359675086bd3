"""Of one job one machine has the claim, whoever is killed and whatever the clocks say; MLflow's store is real."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from tasks.parameters.registration import RegisterParams
from tasks.registry import team_claim as module
from tasks.registry.store import connect
from tasks.registry.team_claim import Overtaken, TeamClaim, take_claim

JOB, OTHER = "a" * 64, "b" * 64


class Clock:
    """Time as one machine has it, which passes only while it sleeps; `then` is done meanwhile."""

    def __init__(self) -> None:
        self.now = 1e9
        self.then: Callable[[], object] = lambda: None

    def time(self) -> float:
        return self.now

    monotonic = time

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.then()


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Take the store of this test for one that machines share."""
    monkeypatch.setattr(module, "OF_ONE_MACHINE", ())
    monkeypatch.setattr(module, "time", clock := Clock())
    return clock


def take(store: RegisterParams, holder: str, **given: Any) -> TeamClaim | str:
    return take_claim(store, given.pop("job", JOB), holder, f"runs/x is merged by {holder}", **given)


def taken(found: TeamClaim | str) -> TeamClaim:
    assert isinstance(found, TeamClaim)
    return found


def names(store: RegisterParams) -> list[str]:
    return sorted(model.name for model in connect(store).search_registered_models())


def test_of_machines_at_the_same_instant_one_claims_and_the_others_name_it(store: RegisterParams) -> None:
    with ThreadPoolExecutor(3) as machines:
        found = list(machines.map(lambda number: take(store, f"gpu{number}"), range(3)))
    (winner,) = [number for number, each in enumerate(found) if isinstance(each, TeamClaim)]
    assert {each for each in found if isinstance(each, str)} == {f"gpu{winner}"}
    with taken(found[winner]) as claim, taken(take(store, "gpu1", job=OTHER)):
        claim.confirm()
        assert names(store) == [f"loreline-claim-{key * 32}-1" for key in "ab"]
    assert names(store) == []
    assert taken(take(store, "gpu7")).predecessor is None


def test_a_holder_that_is_gone_is_followed_at_once_and_finds_out(store: RegisterParams) -> None:
    first = taken(take(store, "gpu1"))
    second = taken(take(store, "gpu2", gone=lambda holder: holder == "gpu1"))
    assert second.predecessor == "gpu1"
    with first, second:
        with pytest.raises(Overtaken, match="another machine took over .* nothing needs to be done"):
            first.confirm()
        second.confirm()
    third = taken(take(store, "gpu1 once more"))  # under the first one's name
    with pytest.raises(Overtaken):
        first.confirm()
    third.confirm()


@pytest.mark.parametrize("ahead", [-86400.0, -90.0, 90.0, 1e6])
def test_a_holder_lives_by_its_heartbeat_whatever_its_clock_says(
    store: RegisterParams, clock: Clock, monkeypatch: pytest.MonkeyPatch, ahead: float
) -> None:
    monkeypatch.setattr(module, "_now", lambda: f"{clock.time() + ahead:.3f}")
    first = taken(take(store, "gpu1"))
    clock.then = first.confirm
    assert take(store, "gpu2") == "gpu1"
    clock.then, began = (lambda: None), clock.time()
    assert taken(take(store, "gpu2")).predecessor == "gpu1"
    assert 60 <= clock.time() - began < 66
    with pytest.raises(Overtaken):
        first.confirm()


def test_a_holder_that_ends_while_it_is_watched_was_not_taken_over_from(
    store: RegisterParams, clock: Clock
) -> None:
    with taken(take(store, "gpu1")) as first, ExitStack() as ending:
        ending.push(first)
        clock.now += 61
        clock.then = ending.close
        assert taken(take(store, "gpu2")).predecessor is None


def test_whoever_comes_first_when_a_holder_is_silent_is_the_only_one(
    store: RegisterParams, clock: Clock
) -> None:
    silent = taken(take(store, "gpu0"))
    clock.now += 61
    with ThreadPoolExecutor(3) as machines:
        found = list(machines.map(lambda number: take(store, f"gpu{number}"), range(1, 4)))
    (winner,) = [each for each in found if isinstance(each, TeamClaim)]
    winner.confirm()
    assert winner.predecessor == "gpu0"
    with pytest.raises(Overtaken):
        silent.confirm()
    assert names(store) == [f"loreline-claim-{'a' * 32}-2"]


def test_an_answer_that_was_lost_is_no_other_holder(
    store: RegisterParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow's client repeats what a server did not answer; so does the flow."""
    from mlflow import MlflowClient

    create = MlflowClient.create_registered_model

    def twice(*given: Any) -> Any:
        create(*given)
        return create(*given)

    monkeypatch.setattr(MlflowClient, "create_registered_model", twice)
    taken(take(store, "gpu1")).confirm()
    taken(take(store, "gpu1")).confirm()
    assert names(store) == [f"loreline-claim-{'a' * 32}-1"]


def test_a_name_that_was_free_a_moment_ago_is_not_held_below_a_higher_one(
    store: RegisterParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look and the claim of one machine, another took over from a third and removed its name."""
    create, others = module._create, iter(["gpu2"])

    def late(client: Any, mine: Any, about: str) -> bool:
        for other in others:
            taken(take(store, "gpu1"))
            taken(take(store, other, gone=lambda holder: holder == "gpu1")).confirm()
        return create(client, mine, about)

    monkeypatch.setattr(module, "_create", late)
    assert take(store, "gpu3") == "gpu2"
    assert names(store) == [f"loreline-claim-{'a' * 32}-2"]


def test_in_a_store_of_one_machine_there_is_nothing_to_claim(
    store: RegisterParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    for holder in ("gpu1", "gpu2"):
        with taken(take(RegisterParams(tracking_uri="sqlite:////nowhere/mlflow.db"), holder)) as claim:
            claim.confirm()
