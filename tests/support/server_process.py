"""A server as a process on 127.0.0.1: started, waited for, stopped with all that it started."""

import os
import shutil
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

START_S = 120.0
"""Longest start: migrating an empty database takes Prefect 10 s of one idle core."""
STOP_S = 10.0


def free_port() -> int:
    """Return a port of 127.0.0.1 that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def until(condition: Callable[[], object], seconds: float = 240, every: float = 0.1) -> None:
    """Wait until `condition` holds; an OSError (nobody answers yet) counts as not yet. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except OSError:
            pass
        if time.monotonic() > deadline:
            raise TimeoutError(f"it did not happen within {seconds:.0f} s")
        time.sleep(every)


class Server(ABC):
    """A process that listens on a port of 127.0.0.1 and writes one log."""

    ending = signal.SIGTERM
    """The signal that ends it at once, its clients or not."""
    user: str | None = None

    def __init__(self, command: list[str], env: dict[str, str], log: Path) -> None:
        self.command, self.server_env, self.log = command, env, log
        self.process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def answers(self) -> object:
        """Ask something that only a server that is ready answers; OSError when it does not."""

    def launch(self) -> Self:
        """Start the process without waiting for it."""
        dies_too = ["setpriv", "--pdeathsig", self.ending.name] if shutil.which("setpriv") else []
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*dies_too, *self.command], env=self.server_env, cwd=self.log.parent,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, user=self.user,
            )  # fmt: skip
        return self

    def wait(self) -> Self:
        """Return when it answers; raises TimeoutError with the end of its log."""

        def settled() -> object:
            return (self.process and self.process.poll() is not None) or self.answers()

        try:
            until(settled, START_S)
        except TimeoutError as error:
            raise TimeoutError(f"{self._story()} ({error})") from None
        if self.process and self.process.poll() is not None:
            raise TimeoutError(f"{self._story()} (it ended with {self.process.returncode})")
        return self

    def stop(self) -> None:
        """End the process and all that it started."""
        if self.process is None:
            return
        self._signal(self.ending)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_S)
        self._signal(signal.SIGKILL)
        self.process.wait()
        self.process = None

    def restart(self) -> None:
        """Start it again, on the same port and with what it had stored."""
        self.stop()
        self.launch().wait()

    def _signal(self, number: signal.Signals) -> None:
        assert self.process
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def _story(self) -> str:
        return f"{self.log.stem} does not answer: {self.log.read_text(errors='replace')[-2000:]}"
