"""Asking a Hub that answers badly, late or not at all; and no secret gets out."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants

from tasks.base import hub_client
from tasks.base.errors import BadInput, LorelineError, Unavailable
from tests.support.hub_checkpoints import REPO, checkpoint, download, environment, value_of
from tests.support.hub_server import Hub

# --- a bad network --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "faults",
    [
        {"GET api/models/lab/model/refs": [429, 503]},
        {"GET api/models/lab/model/revision": [503, 429]},
        {"GET api/models/lab/model/tree": [503]},
        {"HEAD lab/model/resolve": [503]},
        {"GET cdn/": [503]},
        {"HEAD lab/model/resolve": [429], "GET cdn/": [503, 503]},
    ],
)
def test_429_and_503_are_waited_for(server: Hub, faults: dict[str, list[int | str]]) -> None:
    server.repos["lab/model"].commit(checkpoint(1), branch="step1")
    server.faults = faults
    [only] = download(f"{REPO}@step*")
    assert value_of(only.directory) == 1.0
    assert not any(server.faults.values())


def test_a_cut_download_is_resumed_where_it_stopped(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last whole chunk that huggingface_hub wrote."""
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 50_000)
    server.repos["lab/model"].commit(files := checkpoint(1, size=100_000), branch="step1")
    server.faults = {"GET cdn/": ["cut"]}
    [only] = download(f"{REPO}@step*")
    assert (only.directory / "model.safetensors").read_bytes() == files["model.safetensors"]
    assert [headers.get("Range") for headers in server.asked("GET cdn/")] == [None, "bytes=400000-"]


def test_attempts_are_bounded(server: Hub) -> None:
    server.repos["lab/model"].commit(checkpoint(1), branch="step1")
    server.faults = {"GET api/models/lab/model/refs": [503] * 50}
    with pytest.raises(Unavailable, match="answers HTTP 503; try again later"):
        download(f"{REPO}@step*")
    assert len(server.requests) == hub_client.RETRIES + 1


def test_a_hub_that_is_gone_is_unavailable(server: Hub) -> None:
    server.stop()
    with pytest.raises(Unavailable, match=r"cannot be reached \(ConnectError\).*HF_HUB_OFFLINE=1"):
        download(f"{REPO}@step*")


def test_something_else_than_a_hub_is_unavailable(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as the page of a hotel's network: an answer, but not in JSON."""
    server.repos["lab/model"].commit(checkpoint(1), branch="step1")
    monkeypatch.setattr("tests.support.hub_server.json.dumps", lambda _: "<html>")
    with pytest.raises(Unavailable, match="the answers make no sense"):
        download(f"{REPO}@step*")


# --- secrets --------------------------------------------------------------------------------------


def test_no_secret_reaches_an_error_or_a_log(
    server: Hub, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither the token, nor a password in HF_ENDPOINT, nor the signature of a download's address."""
    monkeypatch.setenv("HF_TOKEN", "hf_s3cr3tt0k3n")
    heard: list[str] = []
    handler = logging.StreamHandler()
    handler.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("huggingface_hub")
    logger.addHandler(handler)
    server.repos["lab/model"].commit(checkpoint(1, size=100_000), branch="step1")
    server.faults = {"GET cdn/": ["cut", 403]}
    with pytest.raises(LorelineError) as caught:
        download(f"{REPO}@step*")
    monkeypatch.setenv("HF_ENDPOINT", server.url.replace("//", "//me:s3cr3t-password@"))
    with pytest.raises(BadInput, match="HF_ENDPOINT: holds a user name or password") as endpoint:
        download(f"{REPO}@step*")
    logger.removeHandler(handler)

    told = "".join([*heard, *capfd.readouterr(), str(caught.value), str(endpoint.value)])
    assert "resume" in told  # the log of the cut, which holds the address
    assert "s3cr3t" not in told
    assert server.asked("GET api/models/lab/model/refs")[0]["authorization"] == "Bearer hf_s3cr3tt0k3n"
    assert all("authorization" not in headers for headers in server.asked("GET cdn/"))


def test_no_signature_is_logged_by_a_new_process(server: Hub, tmp_path: Path) -> None:
    """Where huggingface_hub is imported, and sets up its log, only when the first source is read."""
    server.repos["lab/model"].commit(checkpoint(1), branch="step1")
    server.faults = {"GET cdn/": ["cut"]}
    script = f"from tests.support.hub_checkpoints import *; download('{REPO}@step*')"
    fresh = os.environ | environment(tmp_path)
    done = subprocess.run([sys.executable, "-c", script], env=fresh, capture_output=True, text=True)
    assert "resume" in done.stderr
    assert "s3cr3t" not in done.stderr


def test_an_endpoint_that_is_no_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://[hub")
    with pytest.raises(BadInput, match="HF_ENDPOINT: is not a usable address"):
        hub_client.endpoint()
