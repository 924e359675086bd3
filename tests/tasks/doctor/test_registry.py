import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.base.directories import state_dir
from tasks.doctor.finding import Finding
from tasks.doctor.registry import check_registry
from tasks.parameters.registration import RegisterParams
from tasks.registry.alias_changes import AliasChange, note_change
from tasks.registry.store import connect


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Undo the settings that the check makes, which is meant for a process of its own."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def said(found: list[Finding]) -> list[tuple[str, str, str]]:
    return [(finding.subject, finding.level, finding.found) for finding in found]


def test_a_store_that_is_not_there_is_not_made() -> None:
    (finding,) = check_registry(RegisterParams())
    assert (finding.level, finding.found) == (
        "ok",
        f"{state_dir() / 'mlflow.db'} will be made by the first run",
    )
    assert not state_dir().exists()


def test_an_empty_database_gets_no_tables(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").touch()
    (finding,) = check_registry(RegisterParams(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db"))
    assert (finding.level, (tmp_path / "mlflow.db").stat().st_size) == ("ok", 0)


def test_aliases_and_what_was_cut_off_are_shown(store: RegisterParams) -> None:
    assert said(check_registry(store))[1] == ("demo", "ok", "not registered yet: the first merge does it")
    client = connect(store)
    client.create_registered_model("demo")
    for _ in range(2):
        client.create_model_version("demo", "file:///nowhere")
    client.set_registered_model_alias("demo", "champion", "1")
    client.set_registered_model_alias("demo", "challenger", "2")
    move = AliasChange(
        kind="promotion", token="t", version=2, over=1, previous=None, by="ada", when="2026-01-01T00:00:00+00:00",
        why="", evidence="", forced=False, place="elsewhere:/lock",
    )  # fmt: skip
    note_change(client, "demo", move)
    store_, newest, aliases, promotion = said(check_registry(store))
    assert store_ == ("store", "ok", str(state_dir() / "mlflow.db"))
    assert newest == ("versions", "ok", "the newest of demo is 2")
    assert aliases == ("demo", "ok", "challenger → 2, champion → 1")
    assert promotion[:2] == ("promotion", "warning")
    assert promotion[2].startswith("a promotion to version 2 by ada was cut off")


def test_an_alias_that_leads_nowhere_is_a_problem(store: RegisterParams) -> None:
    import sqlite3
    from contextlib import closing

    client = connect(store)
    client.create_registered_model("demo")
    for _ in range(2):
        client.create_model_version("demo", "file:///nowhere")
    client.set_registered_model_alias("demo", "champion", "1")
    with closing(sqlite3.connect(state_dir() / "mlflow.db")) as db:  # MLflow itself removes the alias too
        db.execute("PRAGMA foreign_keys = OFF")
        db.execute("DELETE FROM model_versions WHERE version = 1")
        db.commit()
    assert ("demo", "problem", "champion points at version 1, which does not exist") in said(
        check_registry(store)
    )


@pytest.mark.parametrize(("uri", "what"), [
    ("http://127.0.0.1:1", "http://127.0.0.1:1 does not answer"),
    ("http://", "not a usable address"),
    ("postgresql+nodriver://bob:hunter2@127.0.0.1:1/x", "nodriver"),
])  # fmt: skip
def test_a_store_that_cannot_be_reached_is_a_problem(
    uri: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    (finding,) = check_registry(RegisterParams())
    assert finding.level == "problem"
    assert what in finding.found
    assert "hunter2" not in str(finding)


def test_a_server_that_says_nothing_is_a_problem_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.doctor.probe.WAIT_S", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert [finding.level for finding in check_registry(RegisterParams())] == ["problem"]
