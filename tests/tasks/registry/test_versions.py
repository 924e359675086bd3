import threading
from pathlib import Path
from typing import Any

import pytest

from tasks.errors import BadInput, Unavailable
from tasks.params import RegisterParams
from tasks.register_model import register_model
from tasks.registry.store import connect
from tasks.registry.versions import aliases, champion, files_of, promote


@pytest.fixture
def two(store: RegisterParams, make_artifacts: Any, tmp_path: Path) -> list[Path]:
    """Register two merges, both worth promoting; version 2 is the challenger."""
    merges = [make_artifacts(tmp_path / str(seed), seed=seed) for seed in (1, 2)]
    for artifacts in merges:
        register_model(store, artifacts)
    return merges


def now(params: RegisterParams) -> dict[str, int]:
    return aliases(connect(params), params.name)


def test_nothing_registered_means_no_champion(store: RegisterParams) -> None:
    assert champion(connect(store), store) is None
    with pytest.raises(
        BadInput, match="demo: no version has the alias challenger; run loreline register first"
    ):
        promote(store)


def test_challenger_becomes_champion_and_the_former_one_is_kept(
    store: RegisterParams, two: list[Path]
) -> None:
    assert promote(store, 1).version == 1
    assert now(store) == {"challenger": 2, "champion": 1}
    assert promote(store).version == 2
    assert now(store) == {"challenger": 2, "champion": 2, "previous-champion": 1}
    assert promote(store).version == 2
    assert now(store) == {"challenger": 2, "champion": 2, "previous-champion": 1}


def test_champion_is_found_with_its_files(store: RegisterParams, two: list[Path]) -> None:
    promoted = promote(store, 1)
    client = connect(store)
    found = champion(client, store)
    assert found == promoted
    directory = files_of(client, found)
    assert (directory / "model.safetensors").samefile(two[0] / "merged" / "model.safetensors")


def test_a_reigning_challenger_is_compared_with_whom_it_replaced(
    store: RegisterParams, two: list[Path]
) -> None:
    """So evaluating a merge again after its promotion gives what it gave before."""
    client = connect(store)
    first, second = promote(store, 1), promote(store, 2)
    assert champion(client, store, challenger=second.digest) == first
    assert champion(client, store, challenger=first.digest) == second
    client.delete_registered_model_alias(store.name, "champion")
    assert champion(client, store) is None


def test_unknown_version_is_bad_input(store: RegisterParams, two: list[Path]) -> None:
    with pytest.raises(BadInput, match="demo version 9: not in the registry"):
        promote(store, 9)


@pytest.mark.parametrize("decision", ["KEEP", "INCONCLUSIVE"])
def test_only_a_promote_verdict_is_promoted(
    store: RegisterParams, make_artifacts: Any, decision: str
) -> None:
    register_model(store, make_artifacts(decision=decision))
    with pytest.raises(BadInput, match=f"demo version 1: its verdict is {decision}, not PROMOTE"):
        promote(store)
    assert now(store) == {"challenger": 1}


def test_changed_file_is_named_and_no_alias_moves(store: RegisterParams, two: list[Path]) -> None:
    promote(store, 1)
    weights = two[1] / "merged" / "model.safetensors"
    with weights.open("r+b") as file:  # one bit rots, in the inode that the store shares
        file.seek(-1, 2)
        byte = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(BadInput, match=r"model\.safetensors: changed, .* promote another version"):
        promote(store)
    assert now(store) == {"challenger": 2, "champion": 1}


def test_version_of_another_tool_is_a_champion_but_never_promoted(
    store: RegisterParams, tmp_path: Path
) -> None:
    client = connect(store)
    client.create_registered_model("demo")
    client.create_model_version("demo", (tmp_path / "theirs").as_uri(), tags={"loreline.verdict": "PROMOTE"})
    with pytest.raises(BadInput, match="demo version 1: has no digests"):
        promote(store, 1)
    client.set_registered_model_alias("demo", "champion", "1")
    found = champion(client, store)
    assert found is not None
    assert (found.digest, files_of(client, found)) == ("demo/1", tmp_path / "theirs")


def test_crash_between_the_two_aliases_is_completed(
    store: RegisterParams, two: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    promote(store, 1)
    move = MlflowClient.set_registered_model_alias

    def die(client: Any, name: str, alias: str, version: str) -> None:
        if alias == "champion":
            raise KeyboardInterrupt
        move(client, name, alias, version)

    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", die)
    with pytest.raises(KeyboardInterrupt):
        promote(store, 2)
    assert now(store)["champion"] == 1
    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", move)
    promote(store, 2)
    assert now(store) == {"challenger": 2, "champion": 2, "previous-champion": 1}


def test_writer_that_came_between_is_noticed(
    store: RegisterParams, two: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    move = MlflowClient.set_registered_model_alias
    monkeypatch.setattr(
        MlflowClient,
        "set_registered_model_alias",
        lambda client, name, alias, _: move(client, name, alias, "1"),
    )
    with pytest.raises(
        Unavailable, match="the alias champion went to version 1 meanwhile, not 2; judge again"
    ):
        promote(store, 2)


def test_two_promotions_at_once_end_with_one_consistent_pair(store: RegisterParams, two: list[Path]) -> None:
    threads = [threading.Thread(target=promote, args=(store, number)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = now(store)
    assert {found["champion"], found["previous-champion"]} == {1, 2}
