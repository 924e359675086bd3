"""A registry on a real MLflow server that keeps the files itself, and machines that share nothing but it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.base.errors import BadInput
from tasks.parameters.registration import RegisterParams
from tasks.promote_version import promote_version, roll_back
from tasks.register_model import register_model
from tasks.registry.alias_changes import alias_state
from tasks.registry.store import connect
from tasks.registry.versions import aliases, files_of, verify_files, version_of
from tests.support.promotions import promotable, register
from tests.support.registered import Killed, assert_registered_once
from tests.support.servers import MlflowServer, mlflow_server

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def server(directory: Path) -> Iterator[MlflowServer]:
    with mlflow_server(directory) as running:
        yield running


@pytest.mark.servers
def test_server_on_http_gives_the_same(
    server: MlflowServer, directory: Path, make_artifacts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    store = RegisterParams(name="demo", tracking_uri=server.uri)
    artifacts = make_artifacts()
    upload = MlflowClient.log_model_artifacts

    def die(*args: Any, **kwargs: Any) -> None:
        upload(*args, **kwargs)
        raise Killed

    monkeypatch.setattr(MlflowClient, "log_model_artifacts", die)
    with pytest.raises(Killed):
        register_model(store, artifacts)
    monkeypatch.setattr(MlflowClient, "log_model_artifacts", upload)
    register_model(store, artifacts)
    monkeypatch.setattr(MlflowClient, "log_model_artifacts", die)  # Everything is there: no second upload.
    assert_registered_once(store, artifacts)
    client = connect(store)
    version = version_of(client, "demo", 1)
    downloaded = files_of(client, version).directory
    assert (downloaded / "model.safetensors").read_bytes() == (
        artifacts / "merged/model.safetensors"
    ).read_bytes()
    assert files_of(client, version).directory == downloaded
    verify_files(client, version)
    [weights] = (directory / "mlflow-artifacts").rglob("model.safetensors")
    weights.write_bytes(b"rotten")
    with pytest.raises(BadInput, match=r"model\.safetensors: changed"):
        verify_files(client, version)


RACE = """
import sys
from tasks.base.errors import BadInput
from tasks.parameters.params import Params
from tasks.promote_version import promote_version
from tasks.verdict.judgement import judge_again
params = Params.model_validate_json(sys.argv[1])
judge_again(params, int(sys.argv[2]))  # Everything is loaded when both start.
print("ready", flush=True)
input()
try:
    print(promote_version(params, int(sys.argv[2]), "ann", "").sentence)
except BadInput as declined:
    print(declined)
"""


@pytest.mark.servers
def test_two_machines_promote_at_once(server: MlflowServer, tmp_path: Path) -> None:
    """They share no lock. One wins; the other is judged again, against the winner, and stays what it is."""
    params = promotable(tmp_path, RegisterParams(name="raced", tracking_uri=server.uri))
    for right, name in ((60, "first"), (80, "a"), (80, "b")):
        register(params, tmp_path / name, right)
    promote_version(params, 1, "ann", "")
    machines = []
    for version in (2, 3):
        env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / f"machine-{version}")}
        command = [sys.executable, "-c", RACE, params.model_dump_json(by_alias=True), str(version)]
        machines.append(
            subprocess.Popen(
                command, cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        )
    for machine in machines:
        assert machine.stdout is not None
        assert machine.stdout.readline() == "ready\n"
    for machine in machines:
        assert machine.stdin is not None
        machine.stdin.write("\n")
        machine.stdin.flush()
    said = [machine.communicate()[0].strip() for machine in machines]
    now = alias_state(connect(params.register_), "raced")
    winner = now.aliases["champion"]
    assert now.moves == []
    assert now.aliases == {"challenger": 3, "champion": winner, "previous-champion": 1}
    assert said[winner - 2].startswith(f"champion: models:/raced/{winner} (was 1), PROMOTE")
    assert f"over champion v{winner}" in said[3 - winner]
    roll_back(params.register_, "ann", "it swears")
    found = aliases(connect(params.register_), "raced")
    assert found == {"challenger": 3, "champion": 1, "previous-champion": winner}
