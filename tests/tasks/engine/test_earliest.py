"""What began earlier is finished first; who waits hears of all of it, or of the first error, at once."""

import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor

import pytest

from tasks.engine.earliest import EarliestFirst


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def test_the_lowest_place_is_next_and_results_are_in_order(pool: ThreadPoolExecutor) -> None:
    work, begun, go = EarliestFirst(pool, 1), threading.Event(), threading.Event()
    called: list[int] = []

    def note(item: int) -> int:
        called.append(item)
        return -item

    first = work.submit(5, lambda item: (begun.set(), go.wait()), [0])
    begun.wait()
    late, later = work.submit(7, note, [70, 71]), work.submit(7, note, [72])
    early = work.submit(2, note, [20, 21, 22])
    go.set()
    assert [own.result() for own in (early, late, later)] == [[-20, -21, -22], [-70, -71], [-72]]
    assert called == [20, 21, 22, 70, 71, 72]
    assert first.done()


def test_several_threads_share_a_batch() -> None:
    meeting = threading.Barrier(3, timeout=5)
    with ThreadPoolExecutor(3) as pool:
        assert (
            EarliestFirst(pool, 3).submit(0, lambda item: meeting.wait() < 3, range(6)).result() == [True] * 6
        )


def test_an_error_ends_its_batch_and_no_other(pool: ThreadPoolExecutor) -> None:
    work, called = EarliestFirst(pool, 1), list[int]()

    def fail(item: int) -> None:
        called.append(item)
        raise ValueError(f"item {item}")

    failing, other = work.submit(0, fail, [1, 2, 3]), work.submit(1, str, [4])
    with pytest.raises(ValueError, match="item 1"):
        failing.result()
    assert other.result() == ["4"]
    assert called == [1]


def test_what_is_cancelled_is_waited_for_by_nobody(pool: ThreadPoolExecutor) -> None:
    work, begun, go = EarliestFirst(pool, 1), threading.Event(), threading.Event()
    running = work.submit(0, lambda item: (begun.set(), go.wait()), [0, 1])
    waiting = work.submit(1, str, [2])
    begun.wait()
    work.cancel()
    for batch in (running, waiting):
        with pytest.raises(CancelledError):
            batch.result(timeout=5)
    with pytest.raises(CancelledError):
        work.submit(2, str, [3])
    go.set()
