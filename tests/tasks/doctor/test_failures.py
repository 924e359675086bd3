"""The doctor names runs whose merge was refused, failed or was killed, and not those that were merged since."""

import time
from typing import Any

import pytest

from tasks.base.json_digest import digest_of
from tasks.doctor.failures import FAILURES_SHOWN, check_failures, judge_failures
from tasks.jobs.ledger import Claim, Ledger, LedgerEntry, as_it_is, unmerged
from tests.support.claims import claimed


def settle(source: str, state: Any, why: str = "") -> None:
    claim = claimed(Ledger().claim(digest_of([source, state, why]), source))
    claim.settle(state, why)


def entry(source: str, sentence: str) -> LedgerEntry:
    settle(source, "failed", sentence)
    return Ledger().entries()[0]


def test_without_a_ledger_nothing_is_made(own_state: Any) -> None:
    [found] = check_failures()
    assert (found.level, found.found) == ("ok", "none was refused or failed in the last 30 days")
    assert not (own_state / "loreline" / "ledger.db").exists()


def test_refused_and_failed_runs_are_named_with_what_to_do(own_state: Any) -> None:
    settle("runs/a", "refused", "no tokenizer")
    settle("runs/b", "failed", "disk full")
    settle("runs/c", "merged", "PROMOTE")
    held = Ledger().claim("d", "runs/d")
    assert isinstance(held, Claim)  # at work in this process: no failure
    assert [(found.subject, found.found, found.remedy) for found in check_failures()] == [
        ("runs/b", "failed: disk full", "loreline watch runs/b"),
        ("runs/a", "refused: no tokenizer", "mend that, then loreline watch runs/a"),
    ]


def test_a_run_that_was_merged_later_is_no_failure_and_one_that_failed_later_is(own_state: Any) -> None:
    settle("runs/a", "failed", "first")
    settle("runs/a", "merged")
    settle("runs/b", "merged")
    settle("runs/b", "failed", "with other parameters")
    assert [entry.source for entry in unmerged(Ledger().entries())] == ["runs/b"]


@pytest.mark.parametrize("count", [1, FAILURES_SHOWN, FAILURES_SHOWN + 3])
def test_many_are_counted(own_state: Any, count: int) -> None:
    jobs = [entry(f"runs/{number}", "no") for number in range(count)]
    found = judge_failures(jobs, time.time())
    assert len(found) == min(count, FAILURES_SHOWN) + (count > FAILURES_SHOWN)
    assert count <= FAILURES_SHOWN or found[-1].found == "3 more without a merge"


def test_what_failed_long_ago_is_history(own_state: Any) -> None:
    [found] = judge_failures([entry("runs/a", "no")], time.time() + 31 * 86400)
    assert found.level == "ok"


def test_a_job_whose_process_is_gone_was_killed(own_state: Any) -> None:
    claimed(Ledger().claim("k", "runs/a"))
    [held] = Ledger().entries()
    assert as_it_is(held)[0] == "merging"
    gone = held.model_copy(update={"owner": held.owner.model_copy(update={"pid": 2**22 + 1})})
    assert as_it_is(gone) == ("killed", f"{gone.owner} is gone; the next look takes over its work")
