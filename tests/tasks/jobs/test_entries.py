"""The ledger's file is made when it is needed; one that is something else is named, and left alone."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tasks.base.directories import state_dir
from tasks.base.errors import BadInput
from tasks.jobs.ledger import Ledger, Superseded
from tests.support.claims import KEY, claimed


def test_the_ledger_is_made_on_first_use_in_the_state_directory() -> None:
    assert Ledger().entries() == []
    assert (state_dir() / "ledger.db").is_file()


def test_an_entry_that_somebody_removed_is_not_brought_back(ledger: Ledger, path: Path) -> None:
    claim = claimed(ledger.claim(KEY, "runs/x"))
    path.unlink()
    with pytest.raises(Superseded, match=f"runs/x: its entry is gone from {path}"):
        claim.confirm()
    assert ledger.entries() == []


def test_a_ledger_of_release_0_1_goes_on_with_what_it_knows(ledger: Ledger, path: Path) -> None:
    settled = claimed(ledger.claim(KEY, "runs/x")).settle("merged", "KEEP: it loses", identity="i")
    with closing(sqlite3.connect(path)) as db:
        db.execute("ALTER TABLE jobs DROP COLUMN seen")
        db.execute("PRAGMA user_version = 1")
    assert ledger.claim(KEY, "runs/x") == settled
    claimed(ledger.claim(KEY, "runs/x", again=True, seen="s")).settle("merged", "PROMOTE: it gains")
    assert [entry.seen for entry in ledger.entries()] == ["s"]


def noise(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\0" + b"\x07" * 5000)


def foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE experiments (name TEXT)")


def newer(path: Path) -> None:
    Ledger(path).entries()
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 3")


def odd(path: Path) -> None:
    claimed(Ledger(path).claim(KEY, "runs/x"))
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE jobs SET state = 'odd'")
        db.commit()


@pytest.mark.parametrize(
    ("write", "problem"),
    [
        (noise, "is damaged or no ledger .*move it away and run again"),
        (foreign, "is another program's database.*move it away"),
        (
            newer,
            r"is of another release of Loreline \(schema 3, not 2\); install that, or move the file away",
        ),
        (odd, "is damaged or no ledger .*move it away"),
        (Path.mkdir, "cannot be used .*make the file and its directory writable"),
        (lambda path: (path.parent.rmdir(), path.parent.touch()), "cannot be made .*LORELINE_HOME"),
    ],
)
def test_a_file_that_is_no_ledger_is_named_with_what_to_do(
    ledger: Ledger, path: Path, write: Callable[[Path], object], problem: str
) -> None:
    path.parent.mkdir()
    write(path)
    with pytest.raises(BadInput, match=f"^{path}: {problem}"):
        ledger.claim(KEY, "runs/x")
