"""Real processes that are killed with everything they started."""

import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.process import BaseProcess as Process


def spawn(function: Callable[..., object], *arguments: object) -> Process:
    """Start a function in a process group of its own."""

    def alone() -> None:
        os.setpgid(0, 0)
        try:
            function(*arguments)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)  # without the exit handlers of the test process, which are not its own

    child = multiprocessing.get_context("fork").Process(target=alone)
    child.start()
    return child


def kill(child: Process) -> None:
    if child.exitcode is None and child.pid:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.kill()  # in case it was still about to get a group
    child.join()
