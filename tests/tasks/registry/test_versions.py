from pathlib import Path
from typing import Any

import pytest

from tasks.base.errors import BadInput
from tasks.parameters.registration import RegisterParams
from tasks.register_model import register_model
from tasks.registry.store import connect
from tasks.registry.versions import (
    CHAMPION,
    PREVIOUS,
    Contended,
    champion,
    files_of,
    point,
    verify_files,
    version_of,
)


@pytest.fixture
def two(store: RegisterParams, make_artifacts: Any, tmp_path: Path) -> list[Path]:
    """Register two merges; version 2 is the challenger."""
    merges = [make_artifacts(tmp_path / str(seed), seed=seed) for seed in (1, 2)]
    for artifacts in merges:
        register_model(store, artifacts)
    return merges


def test_nothing_registered_means_no_champion(store: RegisterParams) -> None:
    assert champion(connect(store), store) is None


def test_champion_is_found_with_its_files(store: RegisterParams, two: list[Path]) -> None:
    client = connect(store)
    point(client, "demo", CHAMPION, 1)
    found = champion(client, store)
    assert found == version_of(client, "demo", 1)
    assert found is not None
    directory = files_of(client, found).directory
    assert (directory / "model.safetensors").samefile(two[0] / "merged" / "model.safetensors")


def test_a_reigning_challenger_is_compared_with_whom_it_replaced(
    store: RegisterParams, two: list[Path]
) -> None:
    """So evaluating a merge again after its promotion gives what it gave before."""
    client = connect(store)
    first, second = (version_of(client, "demo", number) for number in (1, 2))
    point(client, "demo", PREVIOUS, 1)
    point(client, "demo", CHAMPION, 2)
    assert champion(client, store, challenger=[second.digest]) == first
    assert champion(client, store, challenger=[first.digest]) == second
    client.delete_registered_model_alias(store.name, CHAMPION)
    assert champion(client, store) is None


def test_unknown_version_is_bad_input(store: RegisterParams, two: list[Path]) -> None:
    with pytest.raises(BadInput, match="demo version 9: not in the registry"):
        version_of(connect(store), "demo", 9)


def test_one_bit_that_rotted_is_found_and_the_file_named(store: RegisterParams, two: list[Path]) -> None:
    client = connect(store)
    with (two[1] / "merged" / "model.safetensors").open("r+b") as file:  # the inode that the store shares
        file.seek(-1, 2)
        byte = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([byte[0] ^ 1]))
    verify_files(client, version_of(client, "demo", 1))
    with pytest.raises(BadInput, match=r"model\.safetensors: changed, .* promote another version"):
        verify_files(client, version_of(client, "demo", 2))


def test_version_of_another_tool_is_a_champion_that_cannot_be_verified(
    store: RegisterParams, tmp_path: Path
) -> None:
    client = connect(store)
    client.create_registered_model("demo")
    client.create_model_version("demo", (tmp_path / "theirs").as_uri(), tags={"loreline.verdict": "PROMOTE"})
    with pytest.raises(BadInput, match="demo version 1: has no digests"):
        verify_files(client, version_of(client, "demo", 1))
    client.set_registered_model_alias("demo", "champion", "1")
    found = champion(client, store)
    assert found is not None
    assert (found.digest, files_of(client, found).directory) == ("demo/1", tmp_path / "theirs")


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
    with pytest.raises(Contended, match="the alias champion went to version 1 meanwhile, not 2"):
        point(connect(store), "demo", CHAMPION, 2)
