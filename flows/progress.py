"""Progress on stderr: a bar on a terminal, plain lines elsewhere."""

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from tasks.engine.progress import Headway, OnProgress

PLAIN_EVERY_S = 9.0
"""Seconds between plain lines: with what a merge takes to say where it is, less than 10."""


def make_bar(what: str, *columns: ProgressColumn) -> Progress:
    """Make a progress bar on stderr that shows only on a terminal."""
    shown = (TextColumn(f"{what} {{task.description}}"), BarColumn(), *columns, TimeRemainingColumn())
    return Progress(*shown, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())


@contextmanager
def tensor_progress(what: str = "merge") -> Iterator[OnProgress]:
    """Yield a function that shows how far a merge is; end with time and peak memory."""
    start = told = time.monotonic()
    with make_bar(what, DownloadColumn()) as bar:
        task = bar.add_task("", total=None)

        def show(headway: Headway) -> None:
            nonlocal told
            description = "; ".join(filter(None, [headway.left, headway.solved or headway.last]))
            bar.update(task, completed=headway.done, total=headway.total, description=description)
            if bar.disable and time.monotonic() - told > PLAIN_EVERY_S:
                told = time.monotonic()
                say(f"{what}: {headway}")

        yield show
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    say(f"{what}: {time.monotonic() - start:.1f} s, peak memory of this process {peak / 1e6:.0f} MB")


def say(text: str) -> None:
    """Print one line of progress."""
    print(text, file=sys.stderr, flush=True)
