import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tasks.errors import BadInput, LorelineError
from tasks.params import RegisterParams
from tasks.records import Registration
from tasks.register_model import register_model
from tasks.registry.store import connect
from tasks.registry.versions import aliases, champion, files_of, promote

ROOT = Path(__file__).parents[2]
LOAD = """
import sys, mlflow, mlflow.artifacts
from transformers import AutoModelForCausalLM, AutoTokenizer
directory = mlflow.artifacts.download_artifacts(sys.argv[1])
model, info = AutoModelForCausalLM.from_pretrained(directory, output_loading_info=True)
assert not info["missing_keys"] and not info["unexpected_keys"], info
assert AutoTokenizer.from_pretrained(directory)("one two")["input_ids"] == [1, 2]
print(directory)
"""


class Killed(BaseException):
    """Nothing catches it, as nothing catches SIGKILL."""


def everything(params: RegisterParams) -> tuple[list[Any], list[Any], list[Any]]:
    """List all versions, runs and logged models in a store."""
    client = connect(params)
    experiment = client.get_experiment_by_name(params.name)
    ids = [experiment.experiment_id] if experiment else []
    versions = [v for v in client.search_model_versions() if v.name == params.name]
    return versions, list(client.search_runs(ids)), list(client.search_logged_models(ids)) if ids else []


def assert_registered_once(params: RegisterParams, artifacts: Path) -> None:
    """Exactly one version, finished run and ready model, holding exactly the merge."""
    registration = register_model(params, artifacts)
    ([version], [run], [model]) = everything(params)
    assert (run.info.status, str(model.status), version.status) == (
        "FINISHED",
        "READY",
        "READY",
    )
    assert registration == Registration.read(artifacts / "registration" / "registration.json")
    assert (registration.version, registration.run_id) == (int(version.version), run.info.run_id)
    assert (registration.model_id, version.run_id) == (model.model_id, run.info.run_id)
    assert aliases(connect(params), params.name)["challenger"] == registration.version
    assert json.loads(model.tags["mlflow.modelVersions"]) == [{"name": params.name, "version": 1}]


def test_merge_becomes_a_version_with_its_evidence(store: RegisterParams, make_artifacts: Any) -> None:
    artifacts = make_artifacts(notes=("equal to averaging",))
    registration = register_model(store, artifacts)
    assert (registration.name, registration.version, registration.aliases) == ("demo", 1, ("challenger",))
    client = connect(store)
    version, run = client.get_model_version("demo", "1"), client.get_run(registration.run_id)
    assert version.tags["loreline.merge"] == registration.digest
    assert version.description.startswith("PROMOTE: the merge gains 0.5. Merged by lore")
    assert version.description.endswith("equal to averaging")
    assert run.data.metrics["gain_over_last/sums_easy/acc"] == 0.5
    assert run.data.params["lore.mu"] == "1.0"
    assert run.data.tags["mlflow.note.content"] == version.description
    assert [output.model_id for output in run.outputs.model_outputs] == [registration.model_id]
    assert [file.path for file in client.list_artifacts(run.info.run_id, "figures")] == ["figures/gains.png"]
    merge_metrics = {m.key for m in client.get_logged_model(registration.model_id).metrics}
    assert merge_metrics == {f"merge/sums_easy/acc{end}" for end in ("", ".low", ".high")}


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


def test_new_evaluation_updates_the_version(
    store: RegisterParams, make_artifacts: Any, tmp_path: Path
) -> None:
    register_model(store, make_artifacts(tmp_path / "first"))
    again = make_artifacts(tmp_path / "second", decision="KEEP", gain=-0.25)
    assert_registered_once(store, again)
    ([version], [run], _) = everything(store)
    assert version.tags["loreline.verdict"] == run.data.tags["loreline.verdict"] == "KEEP"
    assert version.description.startswith("KEEP: the merge gains -0.25.")
    assert run.data.metrics["gain_over_last/sums_easy/acc"] == -0.25
    with pytest.raises(BadInput, match="its verdict is KEEP"):
        promote(store)


def test_same_merge_with_another_card_updates_the_files(
    store: RegisterParams, make_artifacts: Any, tmp_path: Path
) -> None:
    register_model(store, make_artifacts(tmp_path / "first"))
    again = make_artifacts(tmp_path / "second", notes=("new words",))
    assert_registered_once(store, again)
    promoted = promote(store)
    stored = files_of(connect(store), promoted)
    assert "new words" in (stored / "README.md").read_text()
    assert "new words" not in (tmp_path / "first" / "merged" / "README.md").read_text()


def test_other_merges_become_other_versions(
    store: RegisterParams, make_artifacts: Any, tmp_path: Path
) -> None:
    for seed in (1, 2, 1):
        root = tmp_path / str(seed)
        register_model(store, root if root.exists() else make_artifacts(root, seed=seed))
    assert [v.version for v in everything(store)[0]] == [2, 1]
    assert aliases(connect(store), "demo") == {"challenger": 1}


def auto(store: RegisterParams) -> RegisterParams:
    return store.model_copy(update={"promote": "auto"})


@pytest.mark.parametrize(
    ("decision", "held"), [("PROMOTE", ("challenger", "champion")), ("KEEP", ("challenger",))]
)
def test_auto_promotes_on_a_promote_verdict_only(
    store: RegisterParams, make_artifacts: Any, decision: str, held: tuple[str, ...]
) -> None:
    artifacts = make_artifacts(decision=decision)
    assert register_model(auto(store), artifacts).aliases == held
    assert register_model(auto(store), artifacts).aliases == held
    assert sorted(aliases(connect(store), "demo")) == sorted(held)


def test_auto_replaces_only_the_champion_it_was_judged_against(
    store: RegisterParams, make_artifacts: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = register_model(auto(store), make_artifacts(tmp_path / "1", seed=1))
    blind = make_artifacts(tmp_path / "2", seed=2)
    assert register_model(auto(store), blind).aliases == ("challenger",)
    assert "the champion changed since the evaluation; evaluate again" in caplog.text
    judged = make_artifacts(tmp_path / "3", seed=3, against=first.digest)
    assert register_model(auto(store), judged).aliases == ("challenger", "champion")
    assert aliases(connect(store), "demo") == {"challenger": 3, "champion": 3, "previous-champion": 1}


def test_auto_does_not_undo_a_return_to_the_previous_champion(
    store: RegisterParams, make_artifacts: Any, tmp_path: Path
) -> None:
    first = register_model(auto(store), make_artifacts(tmp_path / "1", seed=1))
    second = make_artifacts(tmp_path / "2", seed=2, against=first.digest)
    register_model(auto(store), second)
    promote(store, 1)
    assert register_model(auto(store), second).aliases == ("challenger",)
    reigning = champion(connect(store), store)
    assert reigning is not None
    assert reigning.version == 1


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


CHANGES = [
    "create_experiment",
    "create_run",
    "create_logged_model",
    "finalize_logged_model",
    "log_batch",
    "log_outputs",
    "log_artifact",
    "set_tag",
    "set_terminated",
    "create_registered_model",
    "create_model_version",
    "set_logged_model_tags",
    "set_registered_model_alias",
]


@pytest.mark.parametrize("method", CHANGES)
def test_killed_after_any_change_the_next_run_completes_it(
    store: RegisterParams, make_artifacts: Any, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Dying before a change is dying after the one before it; reading changes nothing."""
    from mlflow import MlflowClient

    artifacts = make_artifacts()
    work = getattr(MlflowClient, method)

    def die(*args: Any, **kwargs: Any) -> None:
        work(*args, **kwargs)
        raise Killed

    monkeypatch.setattr(MlflowClient, method, die)
    with pytest.raises(Killed):
        register_model(store, artifacts)
    assert not (artifacts / "registration").exists()
    monkeypatch.setattr(MlflowClient, method, work)
    assert_registered_once(store, artifacts)


def test_killed_while_linking_the_next_run_completes_it(
    store: RegisterParams, make_artifacts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifacts, link = make_artifacts(), os.link
    left = iter([1, 1, 0])

    def die(*args: Any) -> None:
        if not next(left):
            raise Killed
        link(*args)

    monkeypatch.setattr(os, "link", die)
    with pytest.raises(Killed):
        register_model(store, artifacts)
    monkeypatch.setattr(os, "link", link)
    assert_registered_once(store, artifacts)


def test_time_out_after_success_leaves_one_of_each(
    store: RegisterParams, make_artifacts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow's own retries repeat a request that succeeded unseen: every creation happens twice."""
    from mlflow import MlflowClient

    for method in ("create_run", "create_logged_model", "create_model_version"):
        work = getattr(MlflowClient, method)

        def twice(*args: Any, work: Any = work, **kwargs: Any) -> Any:
            work(*args, **kwargs)
            return work(*args, **kwargs)

        monkeypatch.setattr(MlflowClient, method, twice)
    assert_registered_once(store, make_artifacts())


def test_answer_that_never_came_is_unavailable_and_retried_by_hand(
    store: RegisterParams, make_artifacts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    artifacts, work = make_artifacts(), MlflowClient.create_model_version

    def cut(*args: Any, **kwargs: Any) -> None:
        work(*args, **kwargs)
        raise MlflowException("API request to http://bob:hunter2@h/api failed with timeout exception")

    monkeypatch.setattr(MlflowClient, "create_model_version", cut)
    with pytest.raises(
        LorelineError, match="run the same command again .* nothing is registered twice"
    ) as told:
        register_model(store, artifacts)
    assert told.value.exit_code == 1
    assert "hunter2" not in str(told.value)
    monkeypatch.setattr(MlflowClient, "create_model_version", work)
    assert_registered_once(store, artifacts)


def test_two_threads_register_one_version(store: RegisterParams, make_artifacts: Any) -> None:
    artifacts = make_artifacts()
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: register_model(store, artifacts), range(2))
    assert first == second
    assert_registered_once(store, artifacts)


def test_two_processes_register_one_version(store: RegisterParams, make_artifacts: Any) -> None:
    artifacts = make_artifacts()
    code = (
        "import sys; from pathlib import Path; from tasks.params import RegisterParams as P;"
        "from tasks.register_model import register_model; register_model(P(name='demo'), Path(sys.argv[1]))"
    )
    command = [sys.executable, "-c", code, str(artifacts)]
    both = [subprocess.Popen(command, cwd=ROOT) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert_registered_once(store, artifacts)


@pytest.fixture
def server(empty_store: Path, tmp_path: Path) -> Iterator[str]:
    """Run a real MLflow server that keeps the files itself."""
    shutil.copyfile(empty_store, tmp_path / "server.db")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = f"--backend-store-uri sqlite:///{tmp_path}/server.db --artifacts-destination {tmp_path}/served "
    options += f"--serve-artifacts --host 127.0.0.1 --port {port} --workers 1"
    command = [sys.executable, "-m", "mlflow", "server", *options.split()]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1)
                break
            except OSError:
                time.sleep(0.25)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.slow
def test_server_on_http_gives_the_same(
    server: str, make_artifacts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    store = RegisterParams(name="demo", tracking_uri=server, promote="auto")
    artifacts = make_artifacts()
    upload = MlflowClient.log_model_artifacts

    def die(*args: Any, **kwargs: Any) -> None:
        upload(*args, **kwargs)
        raise Killed

    monkeypatch.setattr(MlflowClient, "log_model_artifacts", die)
    with pytest.raises(Killed):
        register_model(store, artifacts)
    monkeypatch.setattr(MlflowClient, "log_model_artifacts", upload)
    assert register_model(store, artifacts).aliases == ("challenger", "champion")
    monkeypatch.setattr(MlflowClient, "log_model_artifacts", die)  # Everything is there: no second upload.
    assert_registered_once(store, artifacts)
    client = connect(store)
    reigning = champion(client, store)
    assert reigning is not None
    directory = files_of(client, reigning)
    assert (directory / "model.safetensors").read_bytes() == (
        artifacts / "merged/model.safetensors"
    ).read_bytes()
    assert files_of(client, reigning) == directory
    [weights] = (tmp_path / "served").rglob("model.safetensors")
    weights.write_bytes(b"rotten")
    with pytest.raises(BadInput, match=r"model\.safetensors: changed"):
        promote(store)
