"""How a command ends: exit code 2 for bad input, 1 for failure, 128 + n by signal n; errors are sentences."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

from flows.terminal import PlainFormatter
from tasks.base.errors import BadInput, LorelineError, is_unicode, of_system, one_line, without_secrets

DEBUG = "--debug"
GRACE_S = 4.5
"""Seconds between SIGTERM and the end of a process that is still computing."""


def run_to_exit(command: Callable[[], object]) -> None:
    """Run a command; ends the process when it fails or is stopped."""
    signal.signal(signal.SIGTERM, _stop)
    if logging.lastResort:  # prints the warnings of stages
        logging.lastResort.setFormatter(PlainFormatter())
    try:
        if not is_unicode(" ".join(sys.argv)):
            raise BadInput("the command line", "names what is not UTF-8", "rename that file or directory")
        command()
    except LorelineError as error:
        if DEBUG in sys.argv:
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        if DEBUG in sys.argv:
            raise
        print(f"error: {of_system(error)}", file=sys.stderr)
        sys.exit(1)
    except Exception as error:
        if DEBUG in sys.argv:
            raise
        problem = one_line(without_secrets(" ".join(str(error).split()))) or "no message"
        print(f"error: {type(error).__name__}: {problem}; see more with loreline {DEBUG}", file=sys.stderr)
        sys.exit(1)


def _stop(number: int, frame: FrameType | None) -> None:
    """Exit by an exception, so that scratch directories are removed; after GRACE_S exit at once."""
    from tasks.base.scratch import discard_scratch

    def end() -> None:
        discard_scratch()
        os._exit(128 + number)

    last = threading.Timer(GRACE_S, end)
    last.daemon = True
    last.start()
    sys.exit(128 + number)
