"""The pages of Prefect and MLflow, of the servers and stores that a run here uses, until Ctrl-C."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpx

from flows.local_server import START_S, prefect_server, refuse_taken
from flows.progress import say
from tasks.base.directories import state_dir
from tasks.base.errors import Unavailable, without_secrets
from tasks.parameters.registration import RegisterParams
from tasks.registry.store import connect, uri_of

HOST, PORT = "127.0.0.1", 5000
STOP_S = 3.0


def show_pages(params: RegisterParams) -> None:
    """Start what is not running yet, say where the pages are, and stop what was started at the end.

    Raises BadInput where another program has a port, Unavailable where a server does not start or ends.
    """
    with prefect_server(), suppress(KeyboardInterrupt), _mlflow(params) as page:
        say(f"MLflow: {page}; Ctrl-C stops what was started here")
        threading.Event().wait()


@contextmanager
def _mlflow(params: RegisterParams) -> Iterator[str]:
    """Give the address of the registry's pages; a store without a server gets one."""
    uri = uri_of(params)
    if uri.startswith(("http:", "https:")):
        yield without_secrets(uri)
        return
    connect(params)
    port, log = int(os.environ.get("MLFLOW_PORT") or PORT), state_dir() / "mlflow-ui.log"
    refuse_taken(HOST, port, "MLFLOW_PORT")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "ui", "--host", HOST, "--port", str(port), "--workers", "1"],
            env={
                **os.environ,
                "MLFLOW_BACKEND_STORE_URI": uri,
            },  # it may hold a password, and ps shows arguments
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        deadline, page = time.monotonic() + START_S, f"http://{HOST}:{port}"
        while not _healthy(page):
            if server.poll() is not None or time.monotonic() > deadline:
                raise Unavailable(page, "MLflow's server did not start", f"{log} says why")
            time.sleep(0.2)
        yield page
    finally:
        _stop_family(server)


def _healthy(page: str) -> bool:
    try:
        return httpx.get(f"{page}/health", timeout=2).is_success
    except httpx.HTTPError:
        return False


def _stop_family(server: "subprocess.Popen[bytes]") -> None:
    """End a server and its workers."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(server.pid, number)
        with suppress(subprocess.TimeoutExpired):
            server.wait(STOP_S)
