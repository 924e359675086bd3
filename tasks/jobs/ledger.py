"""The ledger: every job's state, owner and outcome, with one claim per job at a time."""

import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from tasks.base.directories import state_dir
from tasks.jobs.claim import Claim, Superseded
from tasks.jobs.entries import LedgerEntry, State, find_entry, put_entry, select_entries, transaction
from tasks.jobs.process_owner import lives, this_process

__all__ = ["Claim", "Ledger", "LedgerEntry", "State", "Superseded"]

DAY_S = 86400.0
"""Clock differences between hosts up to a day are believed."""


class Ledger:
    """The jobs of a state directory, in an SQLite database that is made on first use.

    `lease`: seconds without a heartbeat after which an owner on another host counts as silent.
    Every method raises BadInput for a file that is no ledger, Unavailable when it does not answer.
    """

    def __init__(self, path: Path | None = None, lease: float = 60.0) -> None:
        self._path = path or state_dir() / "ledger.db"
        self._lease = lease

    def claim(
        self,
        key: str,
        source: str,
        flow_run: str | None = None,
        again: bool = False,
        seen: str | None = None,
    ) -> Claim | LedgerEntry:
        """Claim a job, or return the entry that prevents it; `seen` is the training run's own key.

        An entry prevents a claim while its owner lives, or once it is merged, unless asked for `again`.
        """
        owner = this_process()
        with transaction(self._path) as db:
            now, held = time.time(), find_entry(db, key)
            condition = _condition(held, now, self._lease) if held else "gone"
            if held and _in_the_way(held, condition, again):
                return held
            entry = LedgerEntry(
                key=key,
                source=source,
                state="merging",
                token=held.token + 1 if held else 1,
                workspace=_workspace(key, held, condition),
                owner=owner,
                flow_run=flow_run,
                since=now,
                beat=now,
                sentence=f"is being merged by {owner}",
                seen=seen or (held.seen if held else None),
            )
            put_entry(db, entry)
        return Claim(self._path, entry, self._lease, held)

    def find(self, key: str) -> LedgerEntry | None:
        """Return a job's entry."""
        with transaction(self._path) as db:
            return find_entry(db, key)

    def standing(self, key: str) -> LedgerEntry | None:
        """Return the entry that would prevent a claim of this job."""
        held = self.find(key)
        condition = _condition(held, time.time(), self._lease) if held else "gone"
        return held if held and _in_the_way(held, condition) else None

    def merged_as(self, identity: str) -> LedgerEntry | None:
        """Return a merged job with this identity: the same run may have been merged from another place."""
        with transaction(self._path) as db:
            return next(iter(select_entries(db, "WHERE state = 'merged' AND identity = ?", identity)), None)

    def merged_before(self, seen: str) -> LedgerEntry | None:
        """Return the last merge of a training run as it was seen, with whatever parameters."""
        with transaction(self._path) as db:
            return next(iter(select_entries(db, "WHERE state = 'merged' AND seen = ?", seen)), None)

    def entries(self) -> list[LedgerEntry]:
        """Return all jobs, those that changed last first."""
        with transaction(self._path) as db:
            return select_entries(db)


def unmerged(entries: Iterable[LedgerEntry]) -> list[LedgerEntry]:
    """Return the jobs that are not merged, but those of a run that was merged after them.

    `entries`: as `Ledger.entries` gives them, those that changed last first.
    """
    found, merged_since = [], set()
    for entry in entries:
        if entry.state == "merged":
            merged_since.add(entry.source)
        elif entry.source not in merged_since:
            found.append(entry)
    return found


def known_jobs() -> list[LedgerEntry]:
    """Return the jobs of the state directory, those that changed last first, without making a ledger."""
    path = state_dir() / "ledger.db"
    return Ledger(path).entries() if path.is_file() else []


def as_it_is(entry: LedgerEntry) -> tuple[str, str]:
    """Return a job's state and sentence; killed for one whose owner is certainly gone."""
    if entry.state == "merging" and lives(entry.owner) is False:
        return "killed", f"{entry.owner} is gone; the next look takes over its work"
    return entry.state, entry.sentence


def idle_workspaces(places: Path) -> list[Path]:
    """List the workspaces below a directory in which no process is working, by name."""
    if not places.is_dir():
        return []
    working = {entry.workspace for entry in known_jobs() if as_it_is(entry)[0] == "merging"}
    return sorted(place for place in places.iterdir() if place.is_dir() and place.name not in working)


Condition = Literal["alive", "gone", "silent"]
"""Of a job's owner. gone: it certainly writes no more; silent: it may go on writing."""


def _condition(held: LedgerEntry, now: float, lease: float) -> Condition:
    if held.state != "merging":
        return "gone"
    seen = lives(held.owner)
    if seen is not None:
        return "alive" if seen else "gone"
    # Clocks differ: a beat in the future is recent, unless it is from a clock that was plainly wrong.
    return "alive" if -DAY_S < now - held.beat < lease else "silent"


def _in_the_way(held: LedgerEntry, condition: Condition, again: bool = False) -> bool:
    return condition == "alive" or (held.state == "merged" and not again)


def _workspace(key: str, held: LedgerEntry | None, condition: Condition) -> str:
    """Keep the workspace and what is finished there, unless a silent owner may still write into it."""
    stem = key[:16]
    if held is None:
        return stem
    if condition == "gone":
        return held.workspace
    number = re.fullmatch(rf"{re.escape(stem)}-([0-9]+)", held.workspace)
    return f"{stem}-{int(number[1]) + 1 if number else 2}"
