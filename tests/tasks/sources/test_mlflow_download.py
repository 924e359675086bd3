"""Runs in MLflow: the same from a database file and from a server, brought once, checked, and nothing else."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.request import Request, urlopen

import pytest
import torch
from safetensors.torch import load_file
from tasks.parameters.registration import RegisterParams

from tasks.base.errors import BadInput, Unavailable
from tasks.registry.store import connect
from tasks.sources import mlflow_download
from tasks.sources.mlflow_address import address_of, kept
from tasks.sources.mlflow_download import download_mlflow_run
from tasks.sources.sighting import sight
from tests.support.mlflow_runs import log_run
from tests.support.servers import mlflow_server
from tests.support.tiny import write_checkpoint


@pytest.fixture(scope="module")
def server(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    place = tmp_path_factory.mktemp("mlflow")
    shutil.copyfile(empty_store, place / "mlflow.db")
    with mlflow_server(place) as running:
        yield running.uri


@pytest.fixture(params=["file", pytest.param("server", marks=pytest.mark.servers)])
def params(request: pytest.FixtureRequest) -> RegisterParams:
    """Name a store: a database file on this machine, or a server that keeps the files."""
    if request.param == "file":
        return request.getfixturevalue("store")  # type: ignore[no-any-return]
    return RegisterParams(tracking_uri=request.getfixturevalue("server"))


@pytest.fixture
def served(server: str) -> RegisterParams:
    return RegisterParams(tracking_uri=server)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Write a training directory with all that must stay away."""
    for step in (100, 20):
        directory = write_checkpoint(tmp_path / "out", step, {"w": torch.full((4,), float(step))})
    for name in ("optimizer.pt", "training_args.bin", "modeling.py", "merge.json", "deeper/config.json"):
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_bytes(b"raise SystemExit")
    (tmp_path / "out" / "checkpoint-7").touch()
    (tmp_path / "out" / "config.json").write_text("{}")
    return tmp_path / "out"


def value_of(directory: Path) -> float:
    return float(load_file(directory / "model.safetensors")["w"][0])


def times(directory: Path) -> dict[str, tuple[int, int]]:
    paths = [directory, *directory.rglob("*")]
    return {str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in paths}


# --- what is taken ----------------------------------------------------------------------------------


def test_checkpoints_are_taken_in_step_order_without_a_pickle(params: RegisterParams, output: Path) -> None:
    source = f"mlflow:/runs/{log_run(params, output, 'deep/my checkpoints')}/deep/my checkpoints"
    found = download_mlflow_run(source, params)
    assert [(c.step, c.name, value_of(c.directory), c.source) for c in found] == [
        (20, "checkpoint-20", 20.0, f"{source}/checkpoint-20"),
        (100, "checkpoint-100", 100.0, f"{source}/checkpoint-100"),
    ]
    assert {path.name for path in found[0].directory.iterdir()} == {
        "model.safetensors", "config.json", "tokenizer.json", "trainer_state.json", "manifest.json",
    }  # fmt: skip
    assert [kept(c.source) for c in found] == [c.directory for c in found]


def test_a_store_on_this_machine_is_linked_and_not_touched(store: RegisterParams, output: Path) -> None:
    run = log_run(store, output)
    [artifacts] = Path(os.environ["LORELINE_HOME"]).glob(f"mlartifacts/{run}/artifacts/checkpoints")
    before = times(artifacts)
    found = download_mlflow_run(f"mlflow:/runs/{run}/checkpoints", store)
    weights = artifacts / "checkpoint-20" / "model.safetensors"
    assert weights.samefile(found[0].directory / "model.safetensors")
    assert times(artifacts) == before


@pytest.mark.servers
def test_what_is_there_is_not_downloaded_again_and_what_is_damaged_is(
    served: RegisterParams, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = f"mlflow:/runs/{log_run(served, output)}/checkpoints"
    first = download_mlflow_run(source, served)[0]
    downloaded = count_downloads(monkeypatch)
    download_mlflow_run(source, served)
    assert downloaded == []
    weights = first.directory / "model.safetensors"
    weights.write_bytes(bytes(len(weights.read_bytes())))
    download_mlflow_run(source, served)
    assert value_of(first.directory) == 20.0
    assert all("checkpoint-20/" in uri for uri in downloaded)


def count_downloads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    downloaded: list[str] = []
    download = mlflow_download._download

    def counted(client: Any, uri: str, size: int | None, into: Path) -> Path:
        downloaded.append(uri)
        return download(client, uri, size, into)

    monkeypatch.setattr(mlflow_download, "_download", counted)
    return downloaded


@pytest.mark.servers
def test_a_run_that_was_resumed_is_read_anew(served: RegisterParams, output: Path) -> None:
    """MLflow tells no digests: a file of the same size may be another one once the run has another end."""
    run = log_run(served, output)
    source = f"mlflow:/runs/{run}/checkpoints"
    before = sight(source, 60, served)
    download_mlflow_run(source, served)
    shutil.rmtree(output / "checkpoint-20")
    write_checkpoint(output, 20, {"w": torch.full((4,), 21.0)})
    client = connect(served)
    client.update_run(run, status="RUNNING")
    client.log_artifacts(run, str(output / "checkpoint-20"), "checkpoints/checkpoint-20")
    client.set_terminated(run)
    assert sight(source, 60, served).digest != before.digest
    assert value_of(download_mlflow_run(source, served)[0].directory) == 21.0


@pytest.mark.servers
def test_a_killed_download_goes_on_where_it_stopped(
    served: RegisterParams, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that had come whole before kill -9 is not downloaded again; one that was cut is."""
    source = f"mlflow:/runs/{log_run(served, output)}/checkpoints"
    script = (
        "import os, signal, sys; from pathlib import Path\n"
        "from tasks.checkpoints import mlflow_run as m; from tasks.parameters.params import RegisterParams as P\n"
        "whole = m._download\n"
        "def killed(client, uri, size, into):\n"
        "    got = whole(client, uri, size, into)\n"
        "    if got.name == 'tokenizer.json':\n"
        "        os.truncate(got, 1); os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return got\n"
        "m._download = killed\n"
        "m.download_mlflow_run(sys.argv[1], P(tracking_uri=sys.argv[2]))\n"
    )
    done = subprocess.run([sys.executable, "-c", script, source, str(served.tracking_uri)], check=False)
    assert done.returncode == -9
    assert not (address_of(source).place / "checkpoint-20").exists()
    downloaded = count_downloads(monkeypatch)
    found = download_mlflow_run(source, served)
    names = [uri.rpartition("/")[2] for uri in downloaded if "checkpoint-20/" in uri]
    assert names == ["tokenizer.json", "trainer_state.json"]
    assert (found[0].directory / "tokenizer.json").read_text() == "{}"
    assert {path.name for path in address_of(source).place.iterdir()} == {"checkpoint-20", "checkpoint-100"}


# --- how it looks to the watcher --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "ended", "reason"),
    [
        ("FINISHED", True, "the MLflow run finished"),
        ("FAILED", True, "the MLflow run failed"),
        ("KILLED", True, "the MLflow run was killed"),
        (None, False, "still training: the MLflow run is RUNNING"),
    ],
)
@pytest.mark.servers
def test_a_served_run_has_ended_when_mlflow_says_so(
    served: RegisterParams, output: Path, status: str | None, ended: bool, reason: str
) -> None:
    """A server tells no times of files: a run that nobody ended is left alone, however long."""
    source = f"mlflow:/runs/{log_run(served, output, status=status)}/checkpoints"
    seen = sight(source, 0, served)
    assert (seen.source, seen.ended, seen.reason) == (source, ended, reason)
    assert sight(source, 0, served) == seen


# --- what goes wrong --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    ["mlflow:/runs", "mlflow:/runs/0af3", "mlflow:/runs//checkpoints", "mlflow:/runs/0af3/../../x", "mlflow:/runs/0af3/a/./b",
     "mlflow:/runs/0af3/a//b", "mlflow://me:s3cret@host/runs/0af3/a", "mlflow:/models/x/1", "mlflow:/runs/0af3/a?token=s3cret"],
)  # fmt: skip
def test_a_malformed_source_is_refused_without_being_quoted(source: str) -> None:
    with pytest.raises(BadInput, match="not an MLflow address; write mlflow:/runs/RUN_ID/PATH") as told:
        download_mlflow_run(source, RegisterParams(tracking_uri="http://127.0.0.1:1"))
    assert "s3cret" not in str(told.value)


def test_no_such_run_a_deleted_one_and_no_such_path(params: RegisterParams, output: Path) -> None:
    nowhere = f"mlflow:/runs/{'0' * 32}/checkpoints"
    with pytest.raises(BadInput, match=f"{nowhere}: no such run in .*; check the run id"):
        download_mlflow_run(nowhere, params)
    run = log_run(params, output)
    with pytest.raises(BadInput, match="/elsewhere: holds no checkpoint-N directory; name what they were"):
        download_mlflow_run(f"mlflow:/runs/{run}/elsewhere", params)
    connect(params).delete_run(run)
    with pytest.raises(BadInput, match=f"the run is deleted; .* mlflow runs restore --run-id {run}"):
        sight(f"mlflow:/runs/{run}/checkpoints", 0, params)


def test_a_server_that_is_down_is_unavailable_without_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://bob:hunter2@127.0.0.1:1")
    with pytest.raises(
        Unavailable, match=r"^http://127\.0\.0\.1:1: the MLflow server does not answer"
    ) as told:
        download_mlflow_run("mlflow:/runs/0af3/checkpoints", RegisterParams())
    assert "hunter2" not in str(told.value)


def test_a_lost_copy_says_what_to_do(own_state: Path) -> None:
    with pytest.raises(BadInput, match="checkpoint-3: is not kept here any more; loreline fetch --refresh"):
        kept("mlflow:/runs/0af3/checkpoints/checkpoint-3")


def test_a_link_out_of_a_local_store_is_refused(store: RegisterParams, output: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text("{}")
    run = log_run(store, output)
    [artifacts] = Path(os.environ["LORELINE_HOME"]).glob(f"mlartifacts/{run}/artifacts/checkpoints")
    (artifacts / "checkpoint-20" / "generation_config.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(BadInput, match=r"generation_config\.json: is a link out of its directory"):
        download_mlflow_run(f"mlflow:/runs/{run}/checkpoints", store)


@pytest.mark.parametrize(
    "path",
    ["checkpoints/..", "/etc/checkpoint-1", "checkpoints/../checkpoint-1", "checkpoint-1", "../checkpoints"],
)
def test_a_listing_that_leads_out_is_refused(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a store answers is not believed, whatever its client library lets through."""
    entry = SimpleNamespace(path=path, is_dir=True, file_size=None)
    monkeypatch.setattr("mlflow.artifacts.list_artifacts", lambda **_: [entry])
    client: Any = SimpleNamespace(tracking_uri="http://bob:hunter2@host")
    with pytest.raises(
        BadInput, match=r"http://host/a/checkpoints: the store lists .* which leads out of it"
    ):
        mlflow_download.checkpoint_names(client, "http://bob:hunter2@host/a/checkpoints")


class Cutting(BaseHTTPRequestHandler):
    """Passes everything on to a real server, and cuts or shortens the weights as often as it is told."""

    real = ""
    faults: list[str]

    def do_GET(self) -> None:
        self.pass_on(None)

    def do_POST(self) -> None:
        self.pass_on(self.rfile.read(int(self.headers["Content-Length"])))

    def pass_on(self, body: bytes | None) -> None:
        kind = {"Content-Type": self.headers.get("Content-Type") or "application/json"}
        with urlopen(Request(self.real + self.path, body, kind, method=self.command)) as answer:
            data, status = answer.read(), answer.status
        fault = self.faults.pop(0) if self.faults and self.path.endswith("model.safetensors") else ""
        self.send_response(status)
        self.send_header("Content-Length", str(len(data) // 2 if fault == "short" else len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if fault else data)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def cutting(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[RegisterParams]:
    monkeypatch.setattr(mlflow_download, "WAITS_S", (0.0, 0.0))
    monkeypatch.setattr(Cutting, "real", server)
    with ThreadingHTTPServer(("127.0.0.1", 0), Cutting) as proxy:
        threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield RegisterParams(tracking_uri=f"http://127.0.0.1:{proxy.server_port}")
        proxy.shutdown()


@pytest.mark.servers
@pytest.mark.parametrize("fault", ["cut", "short"])
def test_a_cut_download_is_tried_again_and_then_given_up(
    cutting: RegisterParams, served: RegisterParams, output: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = f"mlflow:/runs/{log_run(served, output)}/checkpoints"
    monkeypatch.setattr(Cutting, "faults", [fault] * 9, raising=False)
    with pytest.raises(Unavailable, match="try again|run the same command again"):
        download_mlflow_run(source, cutting)
    assert not list(address_of(source).place.iterdir())
    monkeypatch.setattr(Cutting, "faults", [fault] * 2)
    assert [value_of(c.directory) for c in download_mlflow_run(source, cutting)] == [20.0, 100.0]
