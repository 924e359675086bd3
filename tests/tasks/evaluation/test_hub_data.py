"""A data set's commit is the Hub's own answer, or the one that the cache recorded last."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tasks.evaluation.hub_data import dataset_commit

COMMIT = "0123456789abcdef" * 2 + "01234567"


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        there = self.path.startswith("/api/datasets/org/data")
        self.send_response(200 if there else 404)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps({"id": "org/data", "sha": COMMIT} if there else {}).encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    from huggingface_hub import constants

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", address)
    yield address
    server.shutdown()
    server.server_close()


def record(cache: Path, commit: str) -> None:
    note = cache / "datasets--org--data" / "refs" / "main"
    note.parent.mkdir(parents=True)
    note.write_text(f"{commit}\n")


def test_the_hub_knows_the_newest(hub: str, tmp_path: Path) -> None:
    record(tmp_path, "f" * 40)
    assert dataset_commit("org/data") == COMMIT


def test_offline_the_cache_knows_the_last(hub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert dataset_commit("org/data") is None
    record(tmp_path, "f" * 40)
    assert dataset_commit("org/data") == "f" * 40


def test_what_the_hub_does_not_have_is_left_to_the_loading(hub: str) -> None:
    assert dataset_commit("org/none") is None
