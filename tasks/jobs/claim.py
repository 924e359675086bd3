"""A claim: a process's right to work on one job, kept by a heartbeat until another takes over."""

import logging
import sqlite3
import threading
import time
import traceback
from pathlib import Path
from types import TracebackType
from typing import Self

from tasks.base.errors import BadInput, LorelineError
from tasks.jobs.entries import LedgerEntry, Settled, find_entry, put_entry, remove_entry, transaction

log = logging.getLogger(__name__)

SENTENCE = 300
"""Characters of an unexpected error that are kept."""


class Superseded(LorelineError):
    """Another process took over the job; this one's work is dropped."""


class Claim:
    """The right to work on a job; as a context manager it sends a heartbeat every lease/4 seconds.

    Left by an exception, the job is settled as refused (BadInput) or failed, with the exception's sentence.
    """

    def __init__(self, path: Path, entry: LedgerEntry, lease: float, before: LedgerEntry | None) -> None:
        self.entry = entry
        self.token = entry.token
        self.workspace = entry.workspace
        self.predecessor = before if before and before.state == "merging" else None
        """The entry of the owner it was taken over from, which is gone or silent; None for a new job."""
        self._path, self._before, self._settled = path, before, False
        self._over = threading.Event()
        self._heart = threading.Thread(target=self._beat, args=(lease / 4,), name="heartbeat", daemon=True)

    def confirm(self) -> None:
        """Check that the job is still this claim's, before anything is published where others see it.

        Raises Superseded when another process took over, Unavailable when the ledger does not answer.
        """
        with transaction(self._path) as db:
            held = self._held(db)
            if held.state == "merging":  # a late heartbeat must not change a settled entry
                put_entry(db, held.model_copy(update={"beat": time.time()}))

    def settle(
        self,
        state: Settled,
        sentence: str,
        identity: str | None = None,
        version: str | None = None,
        tag: str | None = None,
    ) -> LedgerEntry:
        """Record the job's outcome, in place of an earlier one; raises as confirm does."""
        now = time.time()
        facts = {"sentence": sentence, "identity": identity, "version": version, "tag": tag}
        with transaction(self._path) as db:
            settled = self._held(db).model_copy(update={"state": state, "since": now, "beat": now, **facts})
            put_entry(db, settled)
        self._settled = True
        self._over.set()
        return settled

    def withdraw(self) -> None:
        """Leave the job as it was before the claim; raises as confirm does."""
        with transaction(self._path) as db:
            self._held(db)
            if self._before:
                put_entry(db, self._before)
            else:
                remove_entry(db, self.entry.key)
        self._settled = True
        self._over.set()

    def __enter__(self) -> Self:
        self._heart.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._heart.join()
        if self._settled or isinstance(error, Superseded):
            return
        if error is None:
            self.settle("failed", "ended without a result")
            return
        try:
            self.settle("refused" if isinstance(error, BadInput) else "failed", _sentence(error))
        except LorelineError as second:  # the first one is what the user needs to see
            log.warning("%s", second)

    def _held(self, db: sqlite3.Connection) -> LedgerEntry:
        entry, source = find_entry(db, self.entry.key), self.entry.source
        if entry is None:
            raise Superseded(source, f"its entry is gone from {self._path}", "run it again")
        if entry.token != self.token:
            raise Superseded(
                source,
                f"{entry.owner} took over while this process was silent",
                "its merge counts, this one's work is dropped, and nothing needs to be done",
            )
        return entry

    def _beat(self, seconds: float) -> None:
        while not self._over.wait(seconds):
            try:
                self.confirm()
            except Superseded:
                return  # the working thread finds out at its next confirm or settle
            except LorelineError as error:
                log.warning("%s (the heartbeat goes on)", error)


def _sentence(error: BaseException) -> str:
    from tasks.base.errors import without_secrets

    if isinstance(error, LorelineError):
        return without_secrets(str(error))
    text = " ".join("".join(traceback.format_exception_only(error)).split())
    return without_secrets(text)[:SENTENCE]
