"""Prefect's server on SQLite: collecting garbage never stops the thread of the event loop."""

import subprocess
import sys
from pathlib import Path

import pytest

PROCESS = Path(__file__).parents[2] / "flows" / "local_server_process.py"

# One connection waits for the write of another, which the main thread is about to end. Meanwhile a collection meets
# an abandoned cursor of the one that waits.
WAITING = """
import gc, runpy, sqlite3, sys, threading, time, weakref
gc.set_threshold(0)  # no collection before it is time for one
collect_apart = runpy.run_path(sys.argv[2])["collect_apart"]

class Cycle(list):
    pass

def connect():
    return sqlite3.connect(sys.argv[1], timeout=10, isolation_level=None, check_same_thread=False)

writing, waiting, told, freed = connect(), connect(), [], threading.Event()
writing.execute("CREATE TABLE rows (x)")
abandoned = Cycle([waiting.execute("VALUES (1), (2)")])  # of which nobody reads the second
abandoned.append(abandoned)
weakref.finalize(abandoned, freed.set)
del abandoned
writing.execute("BEGIN IMMEDIATE")

def wait():
    try:
        waiting.execute("DELETE FROM rows")
        told.append("written")
    except sqlite3.OperationalError as error:
        told.append(str(error))

thread = threading.Thread(target=wait)
thread.start()
time.sleep(1)
gc.set_threshold(700)
COLLECT
for _ in range(20):
    lists = [[] for _ in range(10_000)]
    time.sleep(0.1)
writing.execute("COMMIT")
thread.join()
print(*told, "and freed" if freed.wait(30) else "and kept")
"""


def outcome(place: Path, collect: str) -> str:
    code = WAITING.replace("COLLECT", collect)
    command = [sys.executable, "-c", code, str(place / "rows.db"), str(PROCESS)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def test_a_write_that_others_wait_for_ends_although_garbage_is_theirs(tmp_path: Path) -> None:
    assert outcome(tmp_path, "collect_apart()") == "written and freed\n"


@pytest.mark.slow
def test_it_would_not_if_garbage_were_collected_anywhere(tmp_path: Path) -> None:
    """CPython's own way, which this file is there for: when this fails, it can go."""
    assert outcome(tmp_path, "") == "database is locked and freed\n"
