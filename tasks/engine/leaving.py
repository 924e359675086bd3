"""Leaving a pool of threads: at once when the process is to stop, and without those that do not return."""

import atexit
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

from tasks.base.scratch import discard_scratch

PATIENCE_S = 0.5
"""Seconds that a pool's threads have to return once the process is to stop; a solve ends at its next pass."""
REST_S = 2.5
"""Seconds after that for what the main thread has to end: the claim, the flow run."""
EXITS_S = 1.0
"""Seconds after that for exit handlers; a stopped process ends within 5 in all."""


def leave(pool: ThreadPoolExecutor, error: BaseException | None) -> None:
    """Cancel what waits in a pool, and wait for its threads.

    An `error` that is no Exception is the wish to stop (Ctrl-C, SIGTERM). A decomposition of a large matrix
    hears nothing of it for minutes, and Python would wait for its thread: then the process is ended by force.
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
            threading.Thread(target=_end, args=(waiting, _exit_code(error)), daemon=True).start()


def _end(waiting: threading.Thread, code: int) -> None:
    """End the process, unless the pool's threads return while the main thread ends what it does."""
    waiting.join(REST_S)
    if not waiting.is_alive():
        return
    with _ending:
        discard_scratch()
        # what Python would do only after the threads, such as ending the servers that were started
        exits = threading.Thread(target=atexit._run_exitfuncs, daemon=True)
        exits.start()
        exits.join(EXITS_S)
        os._exit(code)


_ending = threading.Lock()
"""Of several pools whose threads do not return, one ends the process."""


def _exit_code(error: BaseException) -> int:
    """Return what a shell would see, had the exception reached the top."""
    if isinstance(error, SystemExit) and isinstance(error.code, int):
        return error.code
    return 128 + (signal.SIGINT if isinstance(error, KeyboardInterrupt) else signal.SIGTERM)
