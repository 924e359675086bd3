"""Claims for tests: processes that hold them, and entries as other hosts would have left them."""

import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tasks.jobs import entries
from tasks.jobs.entries import find_entry, put_entry, transaction
from tasks.jobs.ledger import Claim, LedgerEntry
from tasks.jobs.process_owner import Owner

ROOT = Path(__file__).parents[2]
KEY, OTHER = "a" * 64, "b" * 64
ELSEWHERE = {"host": "another"}


def claimed(found: Claim | LedgerEntry) -> Claim:
    assert isinstance(found, Claim)
    return found


def entry_of(found: Claim | LedgerEntry | None) -> LedgerEntry:
    assert isinstance(found, LedgerEntry)
    return found


def entry_elsewhere(source: str) -> LedgerEntry:
    """Return the entry of a job that a process on another host works on."""
    owner = Owner(host="another", boot="", namespace="", pid=7, start="1")
    return LedgerEntry(
        key=KEY, source=source, state="merging", token=1, workspace="w", owner=owner, flow_run=None,
        since=1e9, beat=1e9, sentence=f"is being merged by {owner}",
    )  # fmt: skip


def rewrite(path: Path, owner: dict[str, str] | None = None, **changes: object) -> LedgerEntry:
    """Make the entry of KEY say something else, as another host or a restarted one would have left it."""
    with transaction(path) as db:
        entry = entry_of(find_entry(db, KEY))
        changed = entry.model_copy(update={"owner": entry.owner.model_copy(update=owner or {}), **changes})
        put_entry(db, changed)
    return changed


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@contextmanager
def child(code: str, path: Path) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen(
        [sys.executable, "-c", code, path], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        if process.stdin is not None:
            process.stdin.close()


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the ledger's file, as a process does that was stopped in a transaction; nobody waits for long."""
    with (
        closing(sqlite3.connect(path, timeout=20, isolation_level=None)) as db,
        pytest.MonkeyPatch.context() as m,
    ):
        db.execute("BEGIN EXCLUSIVE")
        m.setattr(entries, "BUSY_TIMEOUT_S", 0.02)
        yield
