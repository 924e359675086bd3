"""The history is what the registry says about every merged run, newest first, in a handful of queries."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tasks.base.records.registration import Registration
from tasks.parameters.registration import RegisterParams
from tasks.register_model import register_model
from tasks.registry import history as module
from tasks.registry.history import merged_runs
from tasks.registry.store import connect
from tasks.reporting.history_table import history_table


@pytest.fixture
def three(store: RegisterParams, make_artifacts: Any, tmp_path: Path) -> list[Registration]:
    return [
        register_model(
            store, make_artifacts(tmp_path / f"run{seed}", seed=seed, gain=seed / 10, decision=decision)
        )
        for seed, decision in enumerate(("KEEP", "INCONCLUSIVE", "PROMOTE"))
    ]


def test_every_merged_run_with_what_was_found_out_about_it(
    store: RegisterParams, three: list[Registration]
) -> None:
    client = connect(store)
    for key, value in {"git_tag": "merge/tiny", "git_revision": "c" * 40, "push": "pending"}.items():
        client.set_model_version_tag("demo", "3", f"loreline.{key}", value)
    client.set_registered_model_alias("demo", "champion", "1")
    client.create_model_version("demo", "file:///theirs", tags={"their": "own"})  # nothing of Loreline's
    newest, middle, oldest = merged_runs(store)
    assert (newest.model, newest.verdict, newest.run, newest.method) == (
        "models:/demo/3",
        "PROMOTE",
        "tiny",
        "lore",
    )
    assert (newest.tag, newest.revision, newest.push) == ("merge/tiny", "c" * 40, "pending")
    assert (middle.verdict, middle.tag, middle.revision, middle.push) == ("INCONCLUSIVE", None, None, None)
    assert [run.aliases for run in (newest, middle, oldest)] == [("challenger",), (), ("champion",)]
    assert [run.merge for run in (newest, middle, oldest)] == [0.2, 0.1, 0.0]
    assert newest.when > middle.when > oldest.when


@pytest.mark.parametrize("milliseconds", [-1, 10**15, 9 * 10**18])
def test_an_impossible_time_in_the_store_is_shown_as_a_date(
    milliseconds: int, store: RegisterParams, three: list[Registration]
) -> None:
    path = connect(store).tracking_uri.removeprefix("sqlite:///")
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("update model_versions set creation_time = ? where version = 2", [milliseconds])
    assert "models:/demo/2" in history_table(merged_runs(store))


def test_the_primary_metric_is_that_of_the_evaluation_whatever_its_characters(
    store: RegisterParams, make_artifacts: Any, tmp_path: Path
) -> None:
    """MLflow takes no comma in a metric's name; the values are those of the evaluation's scores."""
    artifacts = make_artifacts(tmp_path / "run")
    path = artifacts / "evaluation" / "evaluation.json"
    tree = json.loads(path.read_text())
    tree["scores"][0]["value"]["mean"] = 0.25  # last
    path.write_text(json.dumps(tree))
    register_model(store, artifacts)
    [run] = merged_runs(store)
    assert (run.primary, run.merge, run.against, run.weighed) == ("sums,easy/acc", 0.5, "last", 0.25)


def test_pages_and_a_limit(
    store: RegisterParams, three: list[Registration], monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = merged_runs(store)
    monkeypatch.setattr(module, "PAGE", 1)
    assert merged_runs(store) == everything
    assert merged_runs(store, limit=2) == everything[:2]


def test_nothing_was_merged_yet(store: RegisterParams) -> None:
    assert merged_runs(store) == []
    assert merged_runs(RegisterParams(name="it's")) == []
