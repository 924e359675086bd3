"""Progress on stderr, a bar on a terminal and plain lines elsewhere, and in the log of a flow run."""

import logging
import resource
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from tasks.base.errors import plain_lines
from tasks.engine.progress import Headway, OnProgress
from tasks.evaluation.progress import ItemsAnswered, OnAnswers

PLAIN_EVERY_S = 9.0
"""Seconds between plain lines: with what a merge takes to say where it is, less than 10."""


def make_bar(what: str, *columns: ProgressColumn) -> Progress:
    """Make a progress bar on stderr that shows only on a terminal."""
    shown = (TextColumn(f"{what} {{task.description}}"), BarColumn(), *columns, TimeRemainingColumn())
    return Progress(*shown, console=Console(file=sys.stderr), transient=True, disable=not sys.stderr.isatty())


@contextmanager
def tensor_progress(what: str = "merge") -> Iterator[OnProgress]:
    """Yield a function that shows how far a merge is; end with time and peak memory."""
    start = told = time.monotonic()
    with make_bar(what, DownloadColumn()) as bar:
        task = bar.add_task("", total=None)

        def show(headway: Headway) -> None:
            nonlocal told
            parts = [headway.measuring, headway.left, headway.solved or headway.last]
            description = "; ".join(filter(None, parts))
            bar.update(task, completed=headway.done, total=headway.total, description=description)
            if bar.disable and time.monotonic() - told > PLAIN_EVERY_S:
                told = time.monotonic()
                say(f"{what}: {headway}")

        yield show
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    say(f"{what}: {time.monotonic() - start:.1f} s, peak memory of this process {peak / 1e6:.0f} MB")


@contextmanager
def answer_progress(what: str = "evaluate") -> Iterator[OnAnswers]:
    """Yield a function that shows how far an evaluation is; the time left is that of the model at work."""
    with _answer_bar(what) if sys.stderr.isatty() else _answer_lines(what) as show:
        yield show


@contextmanager
def _answer_bar(what: str) -> Iterator[OnAnswers]:
    with make_bar(what, MofNCompleteColumn()) as bar:
        task = bar.add_task("", total=None)

        def show(answered: ItemsAnswered) -> None:
            total = answered.total or None
            bar.update(task, description=answered.turn, completed=answered.done, total=total)

        yield show


@contextmanager
def _answer_lines(what: str) -> Iterator[OnAnswers]:
    shown, stopped = _Answers(sys.stderr, what), threading.Event()
    repeat = threading.Thread(target=shown.repeat, args=(stopped,), daemon=True)
    repeat.start()
    try:
        yield shown.take
    finally:
        stopped.set()
        repeat.join()


class _Answers:
    """The plain lines of an evaluation: one when a model's turn comes, then one every `PLAIN_EVERY_S`.

    A thread says them: a single batch may take longer than that.
    """

    def __init__(self, stream: TextIO, what: str) -> None:
        self._stream = stream  # libraries' own bars are silenced by replacing sys.stderr
        self._log = _run_log()  # which the thread would not find
        self._what = what
        self._now: ItemsAnswered | None = None
        self._first = 0
        self._since = 0.0

    def take(self, answered: ItemsAnswered) -> None:
        new = self._now is None or self._now.model != answered.model
        if new or not (self._now and self._now.total):
            self._first, self._since = answered.done, time.monotonic()
        self._now = answered
        if new:
            self._say()

    def repeat(self, stopped: threading.Event) -> None:
        while not stopped.wait(PLAIN_EVERY_S):
            self._say()

    def _say(self) -> None:
        if self._now:
            line = f"{self._what}: {self._now}{self._left(self._now)}"
            if self._log:
                self._log.info("%s", plain_lines(line))
            else:
                self._stream.write(f"{line}\n")  # whole: two threads say it
                self._stream.flush()

    def _left(self, now: ItemsAnswered) -> str:
        """Return how long the rest takes at the speed so far, which starts when this process does."""
        if not self._first < now.done < now.total:
            return ""
        seconds = (time.monotonic() - self._since) / (now.done - self._first) * (now.total - now.done)
        return f", {seconds / 60:.0f} min left" if seconds >= 60 else f", {seconds:.0f} s left"


def say(text: str) -> None:
    """Put a line of progress into the log of the flow run, which Prefect prints too, or print it on stderr.

    Names in it may come from elsewhere.
    """
    if log := _run_log():
        log.info("%s", plain_lines(text))
    else:
        print(plain_lines(text), file=sys.stderr, flush=True)


def _run_log() -> "logging.Logger | logging.LoggerAdapter[logging.Logger] | None":
    """Return the log of the flow run that this is part of; None outside."""
    if "prefect" not in sys.modules:  # importing it takes a second, which a merge by hand need not wait
        return None
    from prefect.exceptions import MissingContextError
    from prefect.logging import get_run_logger

    try:
        return get_run_logger()
    except MissingContextError:
        return None
