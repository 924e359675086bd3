"""Announced ends of training runs: a server that records them, the process that sends one, the line that it leaves."""

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from tasks.base.directories import cache_dir
from tests.support.server_process import until


class Posted(NamedTuple):
    """A request as it came in."""

    target: str
    headers: Mapping[str, str]
    events: list[dict[str, Any]]


class Recorder:
    """A server that takes every request and answers `status`, after `delay` seconds."""

    def __init__(self, status: int = 204, delay: float = 0.0, headers: Mapping[str, str] = {}) -> None:
        self.posted: list[Posted] = []
        recorder = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                recorder.posted.append(Posted(self.path, dict(self.headers), json.loads(body)))
                time.sleep(delay)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()

            def do_GET(self) -> None:
                self.do_POST()

            def do_CONNECT(self) -> None:
                recorder.posted.append(Posted(self.path, dict(self.headers), []))
                self.send_response(502)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_port}"
        self.url = f"http://{self.address}/api"

    @contextmanager
    def running(self) -> Iterator["Recorder"]:
        with self._server:
            threading.Thread(target=self._server.serve_forever, daemon=True).start()
            yield self
            self._server.shutdown()


def announcing(run: Path) -> list[psutil.Process]:
    """Return the processes that announce a run."""
    found = psutil.process_iter(["cmdline"])
    return [process for process in found if str(run) in (process.info["cmdline"] or [])]


def outcome() -> str:
    """Wait for the line that the announcing process leaves, and return it."""
    log = cache_dir() / "announce.log"
    until(lambda: log.exists() and log.read_text().endswith("\n"), 60)
    return log.read_text()
