"""Which versions keep their weights, and that pruning removes weights only, never of what is in use."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tasks.base.errors import BadInput
from tasks.parameters.registration import RegisterParams
from tasks.parameters.retention import RetentionParams
from tasks.register_model import register_model
from tasks.registry import mlflow_model, retention
from tasks.registry.alias_changes import AliasChange, note_change, utc_now
from tasks.registry.evidence import recorded_evaluation
from tasks.registry.promotion import carry_out
from tasks.registry.retention import (
    VersionFacts,
    prune_version,
    retained,
    version_facts,
    weights_of,
)
from tasks.registry.store import connect
from tasks.registry.versions import PRUNED, aliases, files_of, verify_files, version_of
from tests.support.registered import Killed
from tests.support.servers import mlflow_server

NOW = 1000 * 86400.0


def facts(number: int, **known: Any) -> VersionFacts:
    return VersionFacts(number, created=number * 86400.0, **known)


def let_go(versions: list[VersionFacts], **params: Any) -> dict[int, str]:
    decided = retained(versions, RetentionParams(**params), NOW)
    return {one.number: one.why for one in decided if not one.kept}


def test_the_newest_and_what_is_in_use_keep_their_weights() -> None:
    versions = [
        facts(1),
        facts(2, aliases=("champion",)),
        facts(3, aliases=("mine",)),
        facts(4, promoted=NOW - 89 * 86400.0),
        facts(5, promoted=NOW - 91 * 86400.0),
        facts(6, moving=True),
        facts(7, pending=True),
        facts(8),
        facts(9),
        facts(10),
    ]
    assert let_go(versions, newest=2, promoted_within=90) == {
        8: "992 days old, never promoted",
        5: "995 days old, promoted 91 days ago",
        1: "999 days old, never promoted",
    }
    kept = {one.number: one.why for one in retained(versions, RetentionParams(newest=2), NOW) if one.kept}
    assert kept[2] == "champion"
    assert kept[9] == "one of the newest 2"


@pytest.mark.parametrize("newest", [1, 3, 50])
def test_a_young_registry_loses_nothing_and_an_old_one_keeps_the_newest(newest: int) -> None:
    versions = [facts(number) for number in range(1, 31)]
    assert set(let_go(versions, newest=newest)) == set(range(1, max(31 - newest, 1)))
    assert let_go([], newest=newest) == {}


def three(store: RegisterParams, make_artifacts: Any, tmp_path: Path) -> list[Path]:
    roots = [tmp_path / str(seed) for seed in (1, 2, 3)]
    for seed, root in enumerate(roots):
        register_model(store, make_artifacts(root, seed=seed))
    return roots


def test_pruning_removes_weights_and_no_record(
    store: RegisterParams, make_artifacts: Any, tmp_path: Path
) -> None:
    roots = three(store, make_artifacts, tmp_path)
    client = connect(store)
    assert [fact.aliases for fact in version_facts(store)] == [("challenger",), (), ()]
    [(name, size)] = weights_of(store, 1).items()
    assert (name, size) == ("model.safetensors", (roots[0] / "merged" / name).stat().st_size)
    assert prune_version(store, 1, "too old")
    assert prune_version(store, 1, "too old")
    assert weights_of(store, 1) == {}
    version = version_of(client, "demo", 1)
    assert version.tags[PRUNED].endswith(", too old")
    assert recorded_evaluation(client, version).primary == "sums,easy/acc"
    assert {"merge.json", "README.md", "MLmodel"} <= {path.name for path in Path(version.uri[7:]).iterdir()}
    with pytest.raises(
        BadInput, match=r"demo version 1: its weights were pruned \(.*, too old\); choose another"
    ):
        verify_files(client, version)
    verify_files(client, version_of(client, "demo", 2))
    assert (roots[0] / "merged" / name).is_file()


def test_what_an_alias_points_at_is_never_pruned(
    store: RegisterParams, make_artifacts: Any, tmp_path: Path
) -> None:
    three(store, make_artifacts, tmp_path)
    client = connect(store)
    client.set_registered_model_alias("demo", "somebody", "1")
    note_change(client, "demo", change(2))
    assert not prune_version(store, 1, "too old")
    assert not prune_version(store, 2, "too old")
    for number in (1, 2):
        verify_files(client, version_of(client, "demo", number))


def change(version: int) -> AliasChange:
    return AliasChange(
        kind="promotion", token="f" * 32, version=version, over=None, previous=None, by="ann", when=utc_now(),
        why="", evidence="", forced=False, place="elsewhere:lock",
    )  # fmt: skip


def test_a_promotion_that_verified_before_the_mark_is_refused(
    store: RegisterParams, make_artifacts: Any, tmp_path: Path
) -> None:
    """On another machine: it has verified the files, then they are pruned, then it moves the alias."""
    three(store, make_artifacts, tmp_path)
    client = connect(store)
    verify_files(client, version_of(client, "demo", 1))
    assert prune_version(store, 1, "too old")
    with pytest.raises(BadInput, match="were pruned"):
        carry_out(client, "demo", change(1))
    assert aliases(client, "demo") == {"challenger": 3}
    assert not [key for key in client.get_registered_model("demo").tags if "promotion" in key]


@pytest.mark.parametrize("at", ["before", "after"])
def test_killed_in_the_middle_it_is_completed(
    store: RegisterParams, make_artifacts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    three(store, make_artifacts, tmp_path)

    def die(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as killing:
        killing.setattr(retention, "_weights" if at == "before" else "forget_download", die)
        with pytest.raises(Killed):
            prune_version(store, 1, "too old")
    assert PRUNED in version_of(connect(store), "demo", 1).tags
    assert prune_version(store, 1, "too old")
    assert weights_of(store, 1) == {}


@pytest.mark.parametrize("packages", [mlflow_model.PACKAGES, (*mlflow_model.PACKAGES, "numpy")])
def test_registering_again_brings_the_weights_back(
    store: RegisterParams,
    make_artifacts: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    packages: tuple[str, ...],
) -> None:
    """Where the environment has changed meanwhile, too: its requirements are among a version's files."""
    roots = three(store, make_artifacts, tmp_path)
    assert prune_version(store, 1, "too old")
    monkeypatch.setattr(mlflow_model, "PACKAGES", packages)
    assert register_model(store, roots[0]).version == 1
    assert PRUNED not in version_of(connect(store), "demo", 1).tags
    assert weights_of(store, 1)
    verify_files(connect(store), version_of(connect(store), "demo", 1))


def test_a_directory_that_loreline_did_not_publish_is_left_alone(
    store: RegisterParams, make_artifacts: Any, tmp_path: Path
) -> None:
    """Whoever writes to the registry may name any directory as a version's source."""
    training = tmp_path / "training"
    shutil.copytree(make_artifacts(tmp_path / "1") / "merged", training)
    (training / "manifest.json").unlink()
    os.utime(training, (0, 0))
    register_model(store, tmp_path / "1")
    client = connect(store)
    client.create_model_version("demo", training.as_uri(), tags={"loreline.merge": "x"})
    assert weights_of(store, 2) == {}
    assert prune_version(store, 2, "too old")
    assert (training / "model.safetensors").is_file()
    assert training.stat().st_mtime == 0


@pytest.mark.servers
def test_a_server_that_keeps_the_files_loses_the_weights_and_nothing_else(
    own_state: Path, make_artifacts: Any, tmp_path: Path
) -> None:
    with mlflow_server(tmp_path / "server") as running:
        store = RegisterParams(name="demo", tracking_uri=running.uri)
        three(store, make_artifacts, tmp_path)
        client = connect(store)
        kept = files_of(client, version_of(client, "demo", 1)).directory
        assert prune_version(store, 1, "too old")
        assert not kept.exists()  # what this machine had downloaded
        assert weights_of(store, 1) == {}
        assert len(list((tmp_path / "server").rglob("model.safetensors"))) == 2
        assert len(list((tmp_path / "server").rglob("MLmodel"))) == 3
        verify_files(client, version_of(client, "demo", 2))
