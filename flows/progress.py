"""Progress on stderr: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

PLAIN_EVERY_S = 10.0


@contextmanager
def merged_bytes() -> Iterator[Callable[[str, int], None]]:
    """Yield a function that is told of every merged tensor and its bytes."""
    if not sys.stderr.isatty():
        yield _plain()
        return
    columns = (TextColumn("merge {task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=None)
        yield lambda name, size: progress.update(bar, advance=size, description=name)


def _plain() -> Callable[[str, int], None]:
    done, told = 0, time.monotonic()

    def tell(name: str, size: int) -> None:
        nonlocal done, told
        done += size
        if time.monotonic() - told > PLAIN_EVERY_S:
            told = time.monotonic()
            print(f"merge: {done / 1e6:.0f} MB written, last {name}", file=sys.stderr, flush=True)

    return tell


def say(text: str) -> None:
    """Print one line of progress."""
    print(text, file=sys.stderr, flush=True)
