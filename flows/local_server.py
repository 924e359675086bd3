"""A Prefect server for one machine, where none is configured."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_SERVER_API_HOST,
    PREFECT_SERVER_API_PORT,
    temporary_settings,
)

from flows.progress import say
from tasks.base.errors import Unavailable

PROCESS = Path(__file__).with_name("local_server_process.py")
START_S = 120.0


@contextmanager
def prefect_server() -> Iterator[None]:
    """Use the server that PREFECT_API_URL names; unset, the one on this machine, started if it is not there.

    Raises Unavailable when it does not start.
    """
    if PREFECT_API_URL.value():
        yield
        return
    url = f"http://{PREFECT_SERVER_API_HOST.value()}:{PREFECT_SERVER_API_PORT.value()}/api"
    started = None if _answers(url) else _start(url)
    say(f"Prefect server: {url.removesuffix('/api')}; where training runs: export PREFECT_API_URL={url}")
    os.environ["PREFECT_API_URL"] = url  # for the processes of the flow runs
    try:
        with temporary_settings({PREFECT_API_URL: url}):
            yield
    finally:
        if started:
            started.terminate()
            started.wait()


def _start(url: str) -> "subprocess.Popen[bytes]":
    server = subprocess.Popen(
        [sys.executable, "-P", str(PROCESS), "server", "start"],
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + START_S
    while not _answers(url):
        if server.poll() is not None or time.monotonic() > deadline:
            server.kill()
            raise Unavailable(url, "the Prefect server did not start", "run prefect server start to see why")
        time.sleep(0.5)
    return server


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=2).is_success
    except httpx.HTTPError:
        return False
