"""A pool's threads take the pieces of the earliest tensor first, whenever they were submitted.

So a tensor that is measured in rounds is done before the next one is read far, and what is held of it can go.
Who waits for a tensor is woken once: waking him for every piece took an eighth of a merge's time.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Executor, Future
from heapq import heapify, heappop, heappush
from itertools import count
from threading import Lock
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")


class _Batch(Generic[Item]):
    """A function to be called of each of some items, and what it returned."""

    def __init__(self, function: Callable[[Item], Any], items: Sequence[Item]) -> None:
        self.function = function
        self.items = enumerate(items)
        self.results: list[Any] = [None] * len(items)
        self.waiting = self.unfinished = len(items)
        self.future: Future[list[Any]] = Future()


class EarliestFirst:
    """Work that waits for the threads of a pool, in batches that have a place."""

    def __init__(self, pool: Executor, threads: int) -> None:
        self._pool = pool
        self._threads = threads
        self._waiting: list[tuple[int, int, _Batch[Any]]] = []
        self._unfinished: set[_Batch[Any]] = set()
        self._numbers = count()
        self._lock = Lock()
        self._cancelled = False

    def submit(self, place: int, function: Callable[[Item], Any], items: Sequence[Item]) -> Future[list[Any]]:
        """Call a function of each of some items, after those of lower places; return its results, in order.

        Where it raises an error, what waits of the batch is not called.
        """
        batch = _Batch(function, items)
        with self._lock:
            if self._cancelled:
                raise CancelledError
            heappush(self._waiting, (place, next(self._numbers), batch))
            self._unfinished.add(batch)
        for _ in range(min(self._threads, len(items))):
            self._pool.submit(self._work)
        return batch.future

    def cancel(self) -> None:
        """Take no more work, and let nobody wait for what there is."""
        with self._lock:
            self._cancelled = True
            unfinished = list(self._unfinished)
            self._waiting.clear()
        for batch in unfinished:
            self._end(batch, CancelledError())

    def _work(self) -> None:
        for batch, i, item in self._taken():
            try:
                batch.results[i] = batch.function(item)
            except BaseException as error:
                self._end(batch, error)
                continue
            with self._lock:
                batch.unfinished -= 1
            if not batch.unfinished:
                self._end(batch)

    def _taken(self) -> Iterator[tuple[_Batch[Any], int, Any]]:
        """Take one item after another, as long as there are some."""
        while True:
            with self._lock:
                if not self._waiting:
                    return
                batch = self._waiting[0][2]
                i, item = next(batch.items)
                batch.waiting -= 1
                if not batch.waiting:
                    heappop(self._waiting)
            yield batch, i, item

    def _end(self, batch: _Batch[Any], error: BaseException | None = None) -> None:
        with self._lock:
            if batch not in self._unfinished:
                return
            self._unfinished.discard(batch)
            if error is not None and batch.waiting:
                self._waiting = [entry for entry in self._waiting if entry[2] is not batch]
                heapify(self._waiting)
        if error is None:
            batch.future.set_result(batch.results)
        else:
            batch.future.set_exception(error)
