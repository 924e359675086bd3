"""Leaving a pool of threads: at once when the process is to stop, by force where a thread does not return."""

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

from tasks.base.publish import discard_scratch

PATIENCE_S = 2.0
"""Seconds that threads have to return once the process is to stop; a solve returns at its next pass."""


def leave(pool: ThreadPoolExecutor, error: BaseException | None) -> None:
    """Cancel what waits in a pool, and wait for its threads.

    An `error` that is no Exception is the wish to stop (Ctrl-C, SIGTERM). A decomposition of a large matrix
    hears nothing of it for minutes, and no thread can be ended from outside, so then the process ends here.
    """
    pool.shutdown(wait=False, cancel_futures=True)
    if error is None or isinstance(error, Exception):
        pool.shutdown(wait=True)
        return
    waiting = threading.Thread(target=pool.shutdown, daemon=True)
    waiting.start()
    try:
        waiting.join(PATIENCE_S)
    finally:  # also when Ctrl-C comes a second time
        if waiting.is_alive():
            discard_scratch()
            os._exit(_exit_code(error))  # as after a kill: the journal is whole after every line


def _exit_code(error: BaseException) -> int:
    """Return what a shell would see, had the exception reached the top."""
    if isinstance(error, SystemExit) and isinstance(error.code, int):
        return error.code
    return 128 + (signal.SIGINT if isinstance(error, KeyboardInterrupt) else signal.SIGTERM)
