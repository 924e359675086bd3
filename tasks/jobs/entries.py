"""The ledger's file: an SQLite database with one row per job, opened for one transaction at a time."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from tasks.base.errors import BadInput, LorelineError, Unavailable
from tasks.base.records.record import Record
from tasks.jobs.process_owner import Owner

BUSY_TIMEOUT_S = 20.0
"""How long a transaction waits for those of other processes, which take milliseconds."""

Settled = Literal["merged", "refused", "failed"]
"""refused: the input cannot be merged as it is; failed: trying again may help."""
State = Literal["merging"] | Settled


class LedgerEntry(Record):
    """A job's row: the merge of one training run with one set of parameters."""

    key: str
    source: str
    state: State
    token: int
    """Counts the claims of this job; whoever holds an older one has been superseded."""
    workspace: Annotated[str, Field(pattern=r"^[^/]{1,80}$")]
    """Name of the directory where its stages publish."""
    owner: Owner
    flow_run: str | None
    since: float
    """When this state began, in seconds since 1970."""
    beat: float
    """Its owner's last heartbeat, in seconds since 1970."""
    sentence: str
    """Its state or outcome in words."""
    identity: str | None = None
    version: str | None = None
    """models:/name/N"""
    tag: str | None = None
    seen: str | None = None
    """The training run as it was seen, whatever the parameters; None where release 0.1 merged it."""


COLUMNS = tuple(LedgerEntry.model_fields)
APPLICATION = 0x4C6F5245
"""SQLite's application_id of a ledger."""
SCHEMA = 2
TABLE = """
    CREATE TABLE jobs (
        key TEXT PRIMARY KEY, source TEXT NOT NULL, state TEXT NOT NULL, token INTEGER NOT NULL,
        workspace TEXT NOT NULL, owner TEXT NOT NULL, flow_run TEXT, since REAL NOT NULL, beat REAL NOT NULL,
        sentence TEXT NOT NULL, identity TEXT, version TEXT, tag TEXT, seen TEXT
    )
"""
SINCE_1 = "ALTER TABLE jobs ADD COLUMN seen TEXT"


@contextmanager
def transaction(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the ledger, made on first use, for one transaction; an error rolls it back.

    SQLite's rollback journal, not its WAL, which works only on local disks and for the processes of one host.
    Raises Unavailable when others hold it for long, BadInput for a file that is no ledger or not writable.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)) as db:
            # The write lock from the start: a read that turns into a write could fail as busy halfway.
            db.execute("BEGIN IMMEDIATE")
            _prepare(db, path)
            yield db
            db.execute("COMMIT")
    except sqlite3.Error as error:
        raise _ledger_error(path, error) from None
    except OSError as error:
        problem = f"{error.strerror}: {error.filename}"
        raise BadInput(
            path, f"cannot be made ({problem})", "name a writable directory in LORELINE_HOME"
        ) from None


def find_entry(db: sqlite3.Connection, key: str) -> LedgerEntry | None:
    """Return a job's entry."""
    return next(iter(select_entries(db, "WHERE key = ?", key)), None)


def select_entries(db: sqlite3.Connection, where: str = "", *values: str) -> list[LedgerEntry]:
    """Return the entries that fit, the newest first."""
    rows = db.execute(f"SELECT {', '.join(COLUMNS)} FROM jobs {where} ORDER BY since DESC, key", values)
    return [_entry(dict(zip(COLUMNS, row, strict=True))) for row in rows]


def put_entry(db: sqlite3.Connection, entry: LedgerEntry) -> None:
    """Write a job's entry in place of the one before."""
    row = entry.model_dump() | {"owner": entry.owner.model_dump_json()}
    values = ", ".join(f":{column}" for column in COLUMNS)
    db.execute(f"REPLACE INTO jobs ({', '.join(COLUMNS)}) VALUES ({values})", row)


def remove_entry(db: sqlite3.Connection, key: str) -> None:
    """Remove a job's entry."""
    db.execute("DELETE FROM jobs WHERE key = ?", (key,))


def _entry(row: dict[str, object]) -> LedgerEntry:
    try:
        return LedgerEntry.model_validate(row | {"owner": Owner.model_validate_json(str(row["owner"]))})
    except ValidationError:
        raise sqlite3.DatabaseError(f"the entry {row['key']} is not one") from None


def _prepare(db: sqlite3.Connection, path: Path) -> None:
    """Create the table in an empty database, complete an older one, and refuse other programs' databases."""
    if not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        db.execute(f"PRAGMA application_id = {APPLICATION}")
        db.execute(f"PRAGMA user_version = {SCHEMA}")
        db.execute(TABLE)
    elif db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION:
        raise BadInput(path, "is another program's database, not the ledger", "move it away and run again")
    elif (schema := db.execute("PRAGMA user_version").fetchone()[0]) == 1:
        db.execute(SINCE_1)
        db.execute(f"PRAGMA user_version = {SCHEMA}")
    elif schema != SCHEMA:
        raise BadInput(
            path,
            f"is of another release of Loreline (schema {schema}, not {SCHEMA})",
            "install that, or move the file away, and what it knows to be merged is merged again",
        )


WAIT = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}
DAMAGED = {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_ERROR}
DISK = {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL}


def _ledger_error(path: Path, error: sqlite3.Error) -> LorelineError:
    """Return SQLite's error as ours, with a remedy."""
    code = (
        getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
    )  # the primary code; the upper bits refine it
    if code in WAIT:
        return Unavailable(path, f"other processes hold the ledger ({error})", "run the same command again")
    if code in DISK:
        return Unavailable(path, f"the disk does not take it ({error})", "free some space and run again")
    if code in DAMAGED:
        return BadInput(
            path,
            f"is damaged or no ledger ({error})",
            "move it away and run again, and what it knew to be merged is merged again",
        )
    return BadInput(path, f"cannot be used ({error})", "make the file and its directory writable")
