"""Stage register: the merge becomes one version with its evidence, the challenger; nothing else moves."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.base.errors import BadInput
from tasks.base.records.evaluation import Evaluation
from tasks.base.records.registration import Unregistered
from tasks.parameters.registration import RegisterParams
from tasks.register_model import leave_unregistered, register_model
from tasks.registry.evidence import recorded_evaluation
from tasks.registry.history import merged_runs
from tasks.registry.store import connect
from tasks.registry.tags import FOR_PEOPLE, RECORD
from tasks.registry.versions import (
    aliases,
    files_of,
    verify_files,
    version_of,
    version_of_run,
    versions_of_merge,
)
from tests.support.registered import assert_registered_once, everything

LOAD = """
import sys, mlflow, mlflow.artifacts
from transformers import AutoModelForCausalLM, AutoTokenizer
directory = mlflow.artifacts.download_artifacts(sys.argv[1])
model, info = AutoModelForCausalLM.from_pretrained(directory, output_loading_info=True)
assert not info["missing_keys"] and not info["unexpected_keys"], info
assert AutoTokenizer.from_pretrained(directory)("one two")["input_ids"] == [1, 2]
print(directory)
"""


def test_merge_becomes_a_version_with_its_evidence(store: RegisterParams, make_artifacts: Any) -> None:
    artifacts = make_artifacts(notes=("equal to averaging",))
    began = time.time() - 60
    registration = register_model(store, artifacts, began=began)
    assert (registration.name, registration.version, registration.aliases) == ("demo", 1, ("challenger",))
    client = connect(store)
    version, run = client.get_model_version("demo", "1"), client.get_run(registration.run_id)
    assert version_of(client, "demo", 1).tags["loreline.merge"] == registration.digest
    assert version.tags.keys() == {*FOR_PEOPLE, RECORD}
    assert version.description.startswith("PROMOTE: the merge gains 0.5.\n\n| ")
    assert version.description.endswith("\n\n- equal to averaging")
    assert run.data.metrics["gain_over_last/sums_easy/acc"] == 0.5
    assert run.data.params["lore.mu"] == "1.0"
    assert run.data.tags["mlflow.note.content"] == version.description.replace(f"{_report(run)}\n\n", "")
    assert run.data.tags["mlflow.source.name"] == "/training"
    assert run.info.run_name == "PROMOTE: tiny, lore of 3"
    assert run.info.end_time - run.info.start_time >= 60_000
    assert abs(run.data.metrics["seconds"] - 60) < 30
    assert client.get_logged_model(registration.model_id).name == "tiny"
    assert [output.model_id for output in run.outputs.model_outputs] == [registration.model_id]
    assert [file.path for file in client.list_artifacts(run.info.run_id, "figures")] == ["figures/gains.png"]
    evidence = [file.path for file in client.list_artifacts(run.info.run_id, "evaluation")]
    assert evidence == ["evaluation/evaluation.json"]
    merge_metrics = {m.key for m in client.get_logged_model(registration.model_id).metrics}
    assert merge_metrics == {f"merge/sums_easy/acc{end}" for end in ("", ".low", ".high")}


@pytest.mark.slow
def test_from_pretrained_loads_it_in_another_process(store: RegisterParams, make_artifacts: Any) -> None:
    artifacts = make_artifacts()
    register_model(store, artifacts)
    env = os.environ | {"MLFLOW_TRACKING_URI": connect(store).tracking_uri}
    loaded = subprocess.run(
        [sys.executable, "-c", LOAD, "models:/demo@challenger"], env=env, capture_output=True, text=True
    )
    assert loaded.returncode == 0, loaded.stderr
    assert Path(loaded.stdout.strip(), "model.safetensors").samefile(
        artifacts / "merged" / "model.safetensors"
    )


def test_registering_again_is_the_same_and_writes_nothing(store: RegisterParams, make_artifacts: Any) -> None:
    artifacts = make_artifacts()
    register_model(store, artifacts)
    before = {path: path.stat().st_mtime_ns for path in artifacts.rglob("*")}
    started = time.monotonic()
    assert_registered_once(store, artifacts)
    assert time.monotonic() - started < 5
    assert {path: path.stat().st_mtime_ns for path in artifacts.rglob("*")} == before


def test_artifacts_registration_does_not_stand_for_the_registry(
    store: RegisterParams, make_artifacts: Any, empty_store: Path, tmp_path: Path
) -> None:
    artifacts = make_artifacts()
    register_model(store, artifacts)
    shutil.copyfile(empty_store, tmp_path / "other.db")
    other = store.model_copy(update={"tracking_uri": f"sqlite:///{tmp_path}/other.db"})
    assert_registered_once(other, artifacts)
    assert (tmp_path / "mlartifacts").is_dir()


def history_of(store: RegisterParams, number: int) -> tuple[Any, ...]:
    """Return everything that a version says, and its run and its model."""
    client = connect(store)
    version = client.get_model_version("demo", str(number))
    run = client.get_run(version.run_id)
    model = client.get_logged_model(run.outputs.model_outputs[0].model_id)
    directory = files_of(client, version_of(client, "demo", number)).directory
    files = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    evidence = recorded_evaluation(client, version_of(client, "demo", number))
    return version.tags, version.description, run.data.to_dictionary(), model.tags, files, evidence


def test_another_judgement_of_a_merge_is_another_version_and_the_first_stays_as_it_is(
    store: RegisterParams, make_artifacts: Any, tmp_path: Path
) -> None:
    first, again = make_artifacts(tmp_path / "a"), make_artifacts(tmp_path / "b", decision="KEEP", gain=-0.25)
    register_model(store, first)
    before = history_of(store, 1)
    second = register_model(store, again)
    assert second.version == 2
    assert history_of(store, 1) == before
    version = connect(store).get_model_version("demo", "2")
    assert version.tags["loreline.verdict"] == "KEEP"
    assert version.description.startswith("KEEP: the merge gains -0.25.")
    found = recorded_evaluation(connect(store), version_of(connect(store), "demo", 2))
    assert found == Evaluation.read(again / "evaluation" / "evaluation.json")
    assert [run.verdict for run in merged_runs(store)] == ["KEEP", "PROMOTE"]
    after = history_of(store, 2)
    assert [register_model(store, artifacts).version for artifacts in (first, again)] == [1, 2]
    assert (history_of(store, 1), history_of(store, 2)) == (before, after)


def test_the_same_judgement_in_other_words_is_the_same_version(
    store: RegisterParams, make_artifacts: Any
) -> None:
    artifacts = make_artifacts()
    register_model(store, artifacts)
    before = history_of(store, 1)
    path = artifacts / "evaluation" / "evaluation.json"
    path.write_text(path.read_text().replace("the merge gains", "what was merged gains"))
    assert_registered_once(store, artifacts)
    assert history_of(store, 1) == before


def test_a_version_keeps_its_files_when_the_same_merge_has_another_card(
    store: RegisterParams, make_artifacts: Any, tmp_path: Path
) -> None:
    register_model(store, make_artifacts(tmp_path / "first"))
    before = history_of(store, 1)
    assert_registered_once(store, make_artifacts(tmp_path / "second", notes=("new words",)))
    assert history_of(store, 1) == before
    verify_files(connect(store), version_of(connect(store), "demo", 1))


def test_files_that_were_damaged_are_put_back(store: RegisterParams, make_artifacts: Any) -> None:
    artifacts = make_artifacts()
    register_model(store, artifacts)
    version = version_of(connect(store), "demo", 1)
    (files_of(connect(store), version).directory / "config.json").unlink()
    with pytest.raises(BadInput, match="missing"):
        verify_files(connect(store), version)
    assert_registered_once(store, artifacts)
    verify_files(connect(store), version)


def as_releases_before(client: Any, number: int) -> None:
    """Give every fact of a version a tag of its own, and no record."""
    for key, value in version_of(client, "demo", number).tags.items():
        client.set_model_version_tag("demo", str(number), key, value)
    client.delete_model_version_tag("demo", str(number), RECORD)


def test_a_version_with_a_tag_for_every_fact_is_found_and_stays_as_it_is(
    store: RegisterParams, make_artifacts: Any, tmp_path: Path
) -> None:
    """As releases before wrote them."""
    artifacts = make_artifacts(tmp_path / "a")
    register_model(store, artifacts)
    client = connect(store)
    known = version_of(client, "demo", 1)
    as_releases_before(client, 1)
    before = history_of(store, 1)
    assert version_of(client, "demo", 1) == known
    assert register_model(store, artifacts).version == 1
    register_model(store, make_artifacts(tmp_path / "b", decision="KEEP"))
    for merge in (1, 2):
        assert version_of(client, "demo", merge).digest == known.digest
    assert [version.version for version in versions_of_merge(client, "demo", known.digest)] == [2, 1]
    newest = version_of_run(store, known.tags["loreline.run_digest"])
    assert newest is not None
    assert newest.version == 2
    assert [run.method for run in merged_runs(store)] == ["lore", "lore"]
    assert history_of(store, 1) == before


def _report(run: Any) -> str:
    return f"[Report](./#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}/artifacts/report.html)"


def test_what_release_0_1_registered_is_found_without_a_tag_for_its_judgement(
    store: RegisterParams, make_artifacts: Any, tmp_path: Path
) -> None:
    artifacts, client = make_artifacts(tmp_path / "a"), connect(store)
    registration = register_model(store, artifacts)
    as_releases_before(client, 1)
    client.delete_model_version_tag("demo", "1", "loreline.judgement")
    client.delete_tag(registration.run_id, "loreline.judgement")
    before = history_of(store, 1)
    assert register_model(store, artifacts) == registration
    assert history_of(store, 1) == before
    assert register_model(store, make_artifacts(tmp_path / "b", gain=0.25)).version == 2


def test_other_merges_become_other_versions(
    store: RegisterParams, make_artifacts: Any, tmp_path: Path
) -> None:
    for seed in (1, 2, 1):
        root = tmp_path / str(seed)
        register_model(store, root if root.exists() else make_artifacts(root, seed=seed))
    assert [v.version for v in everything(store)[0]] == [2, 1]
    assert aliases(connect(store), "demo") == {"challenger": 2}, "an alias never goes back by itself"


def damage_weights(artifacts: Path) -> None:
    (artifacts / "merged" / "model.safetensors").write_bytes(b"half")


def other_evaluation(artifacts: Path) -> None:
    path = artifacts / "evaluation" / "evaluation.json"
    tree = json.loads(path.read_text())
    tree["models"][1]["digest"] = "another"
    path.write_text(json.dumps(tree))


def other_selection(artifacts: Path) -> None:
    path = artifacts / "selection" / "selection.json"
    tree = json.loads(path.read_text())
    del tree["chosen"][0]
    path.write_text(json.dumps(tree))


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (damage_weights, r"merged/model\.safetensors: changed, .*; run loreline merge again"),
        (other_evaluation, "evaluation: judges another merge; run loreline evaluate again"),
        (other_selection, "merged: not made from this selection; run loreline merge again"),
        (lambda artifacts: (artifacts / "run" / "run.json").unlink(), r"run\.json: not there"),
    ],
)
def test_records_that_do_not_belong_together_are_refused(
    store: RegisterParams, make_artifacts: Any, spoil: Callable[[Path], None], what: str
) -> None:
    artifacts = make_artifacts()
    spoil(artifacts)
    with pytest.raises(BadInput, match=what):
        register_model(store, artifacts)
    assert everything(store) == ([], [], [])


def test_what_is_not_registered_says_so_and_asks_no_server(make_artifacts: Any) -> None:
    artifacts = make_artifacts()
    left = leave_unregistered(artifacts, "it is an experiment")
    (record,) = (artifacts / "registration").glob("*ed.json")
    assert (record.name, Unregistered.read(record)) == ("unregistered.json", left)
    damage_weights(artifacts)
    with pytest.raises(BadInput, match="changed"):
        leave_unregistered(artifacts, "it is an experiment")


class Superseded(Exception):
    """Another run is at this merge now."""


def test_a_stale_run_is_refused_before_anything_is_published(
    store: RegisterParams, make_artifacts: Any
) -> None:
    artifacts = make_artifacts()

    def refuse() -> None:
        raise Superseded

    with pytest.raises(Superseded):
        register_model(store, artifacts, refuse)
    assert everything(store) == ([], [], [])
    assert not (artifacts / "registration").exists()
