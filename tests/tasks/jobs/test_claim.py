"""A claim shows life while the work runs, breaks no work, and always says how the work ended."""

import logging
import threading
import time
from pathlib import Path

import pytest

from tasks.base.errors import BadInput, Unavailable
from tasks.jobs.ledger import Ledger, Superseded
from tests.support.claims import ELSEWHERE, KEY, OTHER, claimed, entry_of, held, rewrite, until


def heartbeats() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "heartbeat"]


def test_the_heartbeat_of_who_was_replaced_ends_and_resurrects_nothing(path: Path) -> None:
    ledger = Ledger(path, lease=0.04)
    stale = claimed(ledger.claim(KEY, "runs/x"))
    rewrite(path, ELSEWHERE, beat=0)
    claimed(ledger.claim(KEY, "runs/x"))
    standing = ledger.find(KEY)

    def work() -> None:
        with stale:
            until(lambda: not heartbeats())
            assert ledger.find(KEY) == standing
            stale.confirm()

    with pytest.raises(Superseded):
        work()
    assert ledger.find(KEY) == standing


def test_the_heartbeat_shows_life_while_the_work_runs_and_ends_with_it(path: Path) -> None:
    ledger = Ledger(path, lease=0.04)
    with claimed(ledger.claim(KEY, "runs/x")) as claim:
        first = entry_of(ledger.find(KEY))
        until(lambda: entry_of(ledger.find(KEY)).beat > first.beat)
        assert [thread.daemon for thread in heartbeats()] == [True]
        settled = claim.settle("merged", "PROMOTE: it gains")
        claim.confirm()  # as a heartbeat does that comes late
        assert ledger.find(KEY) == settled
    assert not heartbeats()
    assert ledger.find(KEY) == settled


def test_a_ledger_that_is_held_breaks_neither_work_nor_heartbeat(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = Ledger(path, lease=0.04)
    with claimed(ledger.claim(KEY, "runs/x")) as claim:
        with held(path), caplog.at_level(logging.WARNING):
            until(lambda: "the heartbeat goes on" in caplog.text)
            with pytest.raises(
                Unavailable, match=f"{path}: other processes hold the ledger .*run the same command"
            ):
                claim.confirm()
        free = time.time()
        until(lambda: entry_of(ledger.find(KEY)).beat > free)
        claim.settle("merged", "PROMOTE: it gains")


def test_a_ledger_that_is_held_hides_no_error(path: Path) -> None:
    ledger = Ledger(path)
    claim = claimed(ledger.claim(KEY, "runs/x"))
    with pytest.raises(ZeroDivisionError), held(path), claim:
        raise ZeroDivisionError
    assert entry_of(ledger.find(KEY)).state == "merging"


@pytest.mark.parametrize(
    ("error", "state", "sentence"),
    [
        (BadInput("runs/x", "no checkpoint", "wait"), "refused", "runs/x: no checkpoint; wait"),
        (Unavailable("http://host", "no answer", "wait"), "failed", "http://host: no answer; wait"),
        (ValueError("two\nlines"), "failed", "ValueError: two lines"),
        (OSError("at http://me:secret@host/db"), "failed", "OSError: at http://host/db"),
        (KeyboardInterrupt(), "failed", "KeyboardInterrupt"),
    ],
)
def test_work_that_raises_leaves_its_sentence(
    ledger: Ledger, error: BaseException, state: str, sentence: str
) -> None:
    with pytest.raises(type(error)), claimed(ledger.claim(KEY, "runs/x")):
        raise error
    settled = entry_of(ledger.find(KEY))
    assert (settled.state, settled.sentence) == (state, sentence)


def test_work_that_settled_stays_settled_and_work_that_did_not_has_failed(ledger: Ledger) -> None:
    claim = claimed(ledger.claim(KEY, "runs/x"))
    claim.settle("merged", "PROMOTE: it gains")
    with pytest.raises(ZeroDivisionError), claim:
        raise ZeroDivisionError
    with claimed(ledger.claim(OTHER, "runs/y")):
        pass
    assert [(entry.state, entry.sentence) for entry in ledger.entries()] == [
        ("failed", "ended without a result"),
        ("merged", "PROMOTE: it gains"),
    ]
