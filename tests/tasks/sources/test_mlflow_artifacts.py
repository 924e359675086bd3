"""Files among MLflow's artifacts: brought once and whole, and nothing that leads elsewhere."""

import os
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

from tasks.base.errors import BadInput, Unavailable
from tasks.parameters.registration import RegisterParams
from tasks.sources import mlflow_artifacts
from tasks.sources.kinds.mlflow import address_of
from tests.support.mlflow_runs import fetch_checkpoints, log_run, value_of


@pytest.mark.servers
def test_what_is_there_is_not_downloaded_again_and_what_is_damaged_is(
    served: RegisterParams, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = f"mlflow:/runs/{log_run(served, output)}/checkpoints"
    first = fetch_checkpoints(source, served)[0]
    downloaded = count_downloads(monkeypatch)
    fetch_checkpoints(source, served)
    assert downloaded == []
    weights = first.directory / "model.safetensors"
    weights.write_bytes(bytes(len(weights.read_bytes())))
    fetch_checkpoints(source, served)
    assert value_of(first.directory) == 20.0
    assert all("checkpoint-20/" in uri for uri in downloaded)


def count_downloads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    downloaded: list[str] = []
    download = mlflow_artifacts._download

    def counted(client: Any, uri: str, size: int | None, into: Path) -> Path:
        downloaded.append(uri)
        return download(client, uri, size, into)

    monkeypatch.setattr(mlflow_artifacts, "_download", counted)
    return downloaded


@pytest.mark.servers
def test_a_killed_download_goes_on_where_it_stopped(
    served: RegisterParams, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that had come whole before kill -9 is not downloaded again; one that was cut is."""
    source = f"mlflow:/runs/{log_run(served, output)}/checkpoints"
    script = (
        "import os, signal, sys; from pathlib import Path\n"
        "from tasks.parameters.params import RegisterParams as P; from tasks.sources import mlflow_artifacts as m\n"
        "from tests.support.mlflow_runs import fetch_checkpoints\n"
        "whole = m._download\n"
        "def killed(client, uri, size, into):\n"
        "    got = whole(client, uri, size, into)\n"
        "    if got.name == 'tokenizer.json':\n"
        "        os.truncate(got, 1); os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return got\n"
        "m._download = killed\n"
        "fetch_checkpoints(sys.argv[1], P(tracking_uri=sys.argv[2]))\n"
    )
    done = subprocess.run([sys.executable, "-c", script, source, str(served.tracking_uri)], check=False)
    assert done.returncode == -9
    assert not (address_of(source).cached / "checkpoint-20").exists()
    downloaded = count_downloads(monkeypatch)
    found = fetch_checkpoints(source, served)
    names = [uri.rpartition("/")[2] for uri in downloaded if "checkpoint-20/" in uri]
    assert names == ["tokenizer.json", "trainer_state.json"]
    assert (found[0].directory / "tokenizer.json").read_text() == "{}"
    assert {path.name for path in address_of(source).cached.iterdir()} == {"checkpoint-20", "checkpoint-100"}


def test_a_link_out_of_a_local_store_is_refused(store: RegisterParams, output: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text("{}")
    run = log_run(store, output)
    [artifacts] = Path(os.environ["LORELINE_HOME"]).glob(f"mlartifacts/{run}/artifacts/checkpoints")
    (artifacts / "checkpoint-20" / "generation_config.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(BadInput, match=r"generation_config\.json: is a link out of its directory"):
        fetch_checkpoints(f"mlflow:/runs/{run}/checkpoints", store)


@pytest.mark.parametrize(
    "path",
    [
        "checkpoints/..",
        "/etc/checkpoint-1",
        "checkpoints/../checkpoint-1",
        "checkpoint-1",
        "../checkpoints",
        f"checkpoints/{'x' * 256}",
        f"checkpoints/{'é' * 128}",
        "checkpoints/\ud800",
    ],
)
def test_a_listing_that_leads_out_is_refused(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a store answers is not believed, whatever its client library lets through."""
    entry = SimpleNamespace(path=path, is_dir=True, file_size=None)
    monkeypatch.setattr("mlflow.artifacts.list_artifacts", lambda **_: [entry])
    client: Any = SimpleNamespace(tracking_uri="http://bob:hunter2@host")
    with pytest.raises(
        BadInput, match=r"http://host/a/checkpoints: the store lists .* which is no name of a file in it"
    ):
        mlflow_artifacts.checkpoint_names(client, "http://bob:hunter2@host/a/checkpoints")


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
def cutting(mlflow_uri: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[RegisterParams]:
    monkeypatch.setattr(mlflow_artifacts, "WAITS_S", (0.0, 0.0))
    monkeypatch.setattr(Cutting, "real", mlflow_uri)
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
        fetch_checkpoints(source, cutting)
    assert not list(address_of(source).cached.iterdir())
    monkeypatch.setattr(Cutting, "faults", [fault] * 2)
    assert [value_of(c.directory) for c in fetch_checkpoints(source, cutting)] == [20.0, 100.0]
