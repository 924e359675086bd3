"""Measuring candidates at the same time, each in the process of a device."""

import contextlib
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

from tasks.base.errors import LorelineError, brief
from tasks.search.candidate import Candidate
from tasks.search.trials import Losses

Answered = TypeVar("Answered")

MeasureOne: TypeAlias = Callable[[Candidate, Losses | None, Callable[[int, int], None]], Answered]
"""Measures a candidate, which may fall behind the one that is best so far."""
MeasureSome: TypeAlias = Callable[
    [Sequence[Candidate], Losses | None, Callable[[int, int, int], None]], list[Answered]
]
"""Measures at most a candidate a device; tells the place of who answered how many items."""


@contextlib.contextmanager
def on_devices(
    makers: Sequence[Callable[[], MeasureOne[Answered]]], threads: int
) -> Iterator[MeasureSome[Answered]]:
    """Make what measures, one for each device: here where there is one, else each in a process of its own.

    Makers are picklable; a process computes with so many threads. An error of a process is raised here, once
    the others have answered; all processes end with this one, however it ends.
    """
    if len(makers) == 1:
        measure = makers[0]()
        yield lambda candidates, best, on_items: [
            measure(candidate, best, lambda done, total: on_items(0, done, total)) for candidate in candidates
        ]
        return
    workers = [_start(make, threads) for make in makers]
    try:
        yield lambda candidates, best, on_items: _ask(workers, candidates, best, on_items)
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.join()


class _Worker(NamedTuple):
    process: Any
    link: Connection


class _Answer(NamedTuple, Generic[Answered]):
    measured: Answered | LorelineError


def _start(make: Callable[[], MeasureOne[Answered]], threads: int) -> _Worker:
    context = multiprocessing.get_context("spawn")  # CUDA does not outlive a fork
    here, there = context.Pipe()
    process = context.Process(target=_work, args=(make, threads, there), daemon=True)
    process.start()
    there.close()  # or the end of the process would not show as EOF
    return _Worker(process, here)


def _ask(
    workers: Sequence[_Worker],
    candidates: Sequence[Candidate],
    best: Losses | None,
    on_items: Callable[[int, int, int], None],
) -> list[Answered]:
    places = {worker.link: place for place, worker in enumerate(workers[: len(candidates)])}
    for link, place in places.items():
        link.send((candidates[place], best))
    answers: dict[int, Any] = {}
    while len(answers) < len(candidates):
        ready = wait([link for link, place in places.items() if place not in answers])
        for link, place in [(link, place) for link, place in places.items() if link in ready]:
            try:
                told = link.recv()
            except EOFError:
                told = _Answer(_ended(workers[place].process, candidates[place]))
            if isinstance(told, _Answer):
                answers[place] = told.measured
            else:
                on_items(place, *told)
    for answer in answers.values():
        if isinstance(answer, LorelineError):
            raise answer
    return [answers[place] for place in range(len(candidates))]


def _ended(process: Any, candidate: Candidate) -> LorelineError:
    process.join()
    return LorelineError(
        "search.devices",
        f"the process that tried {candidate} ended with code {process.exitcode}",
        "look for what stopped it, such as a lack of memory, and run the same command again",
    )


def _work(make: Callable[[], MeasureOne[Answered]], threads: int, link: Connection) -> None:
    """Answer what is asked, until the process that asks ends."""
    import torch

    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    measure = None
    while True:
        candidate, best = link.recv()
        try:
            measure = measure or make()
            link.send(_Answer(measure(candidate, best, lambda *told: link.send(told))))
        except LorelineError as error:
            link.send(_Answer(error))
        except Exception as error:
            problem = f"trying {candidate} failed ({type(error).__name__}: {brief(error)})"
            link.send(_Answer(LorelineError("search", problem, "report this, with the log")))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)
