"""Processes measure what this one would, tell how far they are, and end with it."""

import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tasks.base.errors import BadInput, LorelineError
from tasks.evaluation.measure import OnItems
from tasks.search.candidate import Candidate, as_it_stands, plain_average, weighted
from tasks.search.on_devices import MeasureOne, on_devices
from tasks.search.trials import Losses
from tests.support.killing import spawn

CANDIDATES = [weighted([1.0, 2.0]), plain_average(2), as_it_stands(2)]


def maker(here: Path, device: int) -> MeasureOne[tuple[int, float, str]]:
    (here / f"{device}.pid").write_text(str(os.getpid()))
    return partial(_measure, device)


def _measure(
    device: int, candidate: Candidate, best: Losses | None, on_items: OnItems
) -> tuple[int, float, str]:
    if candidate == as_it_stands(1):
        raise BadInput("merge.method", "is not one of them", "take another")
    if candidate == as_it_stands(9):
        os._exit(7)
    if candidate == as_it_stands(8):
        time.sleep(600)
    on_items(1, 2)
    return device, best.mean if best else 0.0, str(candidate)


@pytest.mark.parametrize("devices", [1, 2])
def test_measured_elsewhere_it_is_what_is_measured_here(devices: int, tmp_path: Path) -> None:
    told, best = [], Losses(np.array([1.0, 2.0]))
    with on_devices([partial(maker, tmp_path, place) for place in range(devices)], 1) as measure:
        first = measure(CANDIDATES[:1], None, lambda *far: told.append(far))
        some = measure(CANDIDATES[:devices], best, lambda *far: told.append(far))
    assert first == [(0, 0.0, str(CANDIDATES[0]))]
    assert some == [(place, 1.5, str(CANDIDATES[place])) for place in range(devices)]
    assert sorted(told) == sorted([(0, 1, 2), *((place, 1, 2) for place in range(devices))])
    pids = {int(path.read_text()) for path in tmp_path.glob("*.pid")}
    assert (os.getpid() in pids) == (devices == 1)
    assert not any(is_alive(pid) for pid in pids - {os.getpid()})


def test_errors_of_a_process_are_raised_here(tmp_path: Path) -> None:
    makers = [partial(maker, tmp_path, place) for place in range(2)]
    with on_devices(makers, 1) as measure:
        with pytest.raises(BadInput, match="merge.method: is not one of them; take another"):
            measure([CANDIDATES[0], as_it_stands(1)], None, lambda *far: None)
        assert measure(CANDIDATES[:2], None, lambda *far: None)[1][0] == 1
        with pytest.raises(
            LorelineError, match=r"search\.devices: the process that tried .* ended with code 7"
        ):
            measure([as_it_stands(9)], None, lambda *far: None)


def test_killed_the_search_leaves_no_process_behind(tmp_path: Path) -> None:
    child = spawn(partial(_search_for_ever, tmp_path))
    pids = [tmp_path / f"{place}.pid" for place in range(2)]
    wait_for(lambda: all(path.exists() and path.read_text() for path in pids))
    assert child.pid
    os.kill(child.pid, signal.SIGKILL)  # alone, as the kernel does that is short of memory
    child.join()
    wait_for(lambda: not any(is_alive(int(path.read_text())) for path in pids))


def _search_for_ever(here: Path) -> None:
    with on_devices([partial(maker, here, place) for place in range(2)], 1) as measure:
        measure([as_it_stands(8), as_it_stands(8)], None, lambda *far: None)


def wait_for(done: Callable[[], bool]) -> None:
    until = time.monotonic() + 120
    while not done():
        assert time.monotonic() < until
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
