"""A Prefect server for one machine, where none is configured."""

import errno
import os
import socket
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

from flows.prefect_access import check_access
from flows.progress import say
from tasks.base.errors import BadInput, Unavailable, of_system

PROCESS = Path(__file__).with_name("local_server_process.py")
START_S = 120.0


@contextmanager
def prefect_server() -> Iterator[None]:
    """Use the server that PREFECT_API_URL names; unset, the one on this machine, started if it is not there.

    Raises Unavailable when it does not start, BadInput when it does not take this process's credentials.
    """
    if PREFECT_API_URL.value():
        check_access()
        yield
        return
    url, seen = addresses(PREFECT_SERVER_API_HOST.value(), PREFECT_SERVER_API_PORT.value())
    started = None if _answers(url) else _start(url, seen)
    say(f"Prefect server: {seen.removesuffix('/api')}; where training runs: export PREFECT_API_URL={seen}")
    os.environ["PREFECT_API_URL"] = url  # for the processes of the flow runs
    try:
        with temporary_settings({PREFECT_API_URL: url}):
            check_access()
            yield
    finally:
        if started:
            started.terminate()
            started.wait()


def addresses(host: str, port: int) -> tuple[str, str]:
    """Return the API's address for this machine, and for others, browsers among them.

    A server that listens on every interface is reached from elsewhere by this machine's name.
    """
    everywhere = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}
    names = (everywhere.get(host, host), socket.gethostname() if host in everywhere else host)
    here, elsewhere = (f"http://{name}:{port}/api" for name in names)
    return here, elsewhere


def _start(url: str, seen: str) -> "subprocess.Popen[bytes]":
    """Start the server; its UI asks the API at `seen`, unless PREFECT_UI_API_URL says otherwise."""
    refuse_taken(PREFECT_SERVER_API_HOST.value(), PREFECT_SERVER_API_PORT.value(), "PREFECT_SERVER_API_PORT")
    server = subprocess.Popen(
        [sys.executable, "-P", str(PROCESS), "server", "start"],
        env={"PREFECT_UI_API_URL": seen, **os.environ},
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


def refuse_taken(host: str, port: int, variable: str) -> None:
    """Raise BadInput where another program listens on a port; `variable` takes another one."""
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        problem = (
            "another program listens there" if error.errno == errno.EADDRINUSE else of_system(error).problem
        )
        raise BadInput(f"{host}:{port}", problem, f"set {variable} to another port") from None


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=2).is_success
    except httpx.HTTPError:
        return False
