"""Progress on stderr: a bar on a terminal, plain lines elsewhere."""

import resource
import sys
import time
from collections.abc import Callable, Iterator
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

PLAIN_EVERY_S = 10.0


def make_bar(what: str, *columns: ProgressColumn) -> Progress:
    """Make a progress bar on stderr that shows only on a terminal."""
    shown = (TextColumn(f"{what} {{task.description}}"), BarColumn(), *columns, TimeRemainingColumn())
    return Progress(*shown, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())


@contextmanager
def tensor_progress(what: str = "merge") -> Iterator[Callable[[str, int, int], None]]:
    """Yield a function to call after every tensor; end with time and peak memory."""
    start = told = time.monotonic()
    with make_bar(what, DownloadColumn()) as bar:
        task = bar.add_task("", total=None)

        def show(name: str, done: int, total: int) -> None:
            nonlocal told
            bar.update(task, completed=done, total=total, description=name)
            if bar.disable and time.monotonic() - told > PLAIN_EVERY_S:
                told = time.monotonic()
                say(f"{what}: {done / 1e6:.0f} of {total / 1e6:.0f} MB, last {name}")

        yield show
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    say(f"{what}: {time.monotonic() - start:.1f} s, peak memory of this process {peak / 1e6:.0f} MB")


def say(text: str) -> None:
    """Print one line of progress."""
    print(text, file=sys.stderr, flush=True)
