"""A Hub for the tests of this room."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.hub_checkpoints import environment
from tests.support.hub_server import Hub


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Run a Hub named by HF_ENDPOINT, with an empty cache, and short waits between attempts."""
    from huggingface_hub import constants

    from tasks.sources import hub_download

    for key, value in environment(tmp_path).items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "hf" / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub_download, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(hub_download, "RETRIES", 2)
    server = Hub()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    yield server
    server.stop()
