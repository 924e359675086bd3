"""Progress on stderr: a bar on a terminal, plain lines elsewhere."""

import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

PLAIN_EVERY_S = 10.0


@contextmanager
def merged_bytes() -> Iterator[Callable[[str, int], None]]:
    """Yield a function that hears of every merged tensor and its bytes; end with time and peak memory."""
    start = time.monotonic()
    with _bar() if sys.stderr.isatty() else nullcontext(_plain()) as on_tensor:
        yield on_tensor
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    say(f"merge: {time.monotonic() - start:.1f} s, peak memory of this process {peak / 1e6:.0f} MB")


@contextmanager
def _bar() -> Iterator[Callable[[str, int], None]]:
    columns = (TextColumn("merge {task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
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
