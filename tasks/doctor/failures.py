"""Naming the training runs whose merge was refused, failed or was killed."""

import time
from collections.abc import Sequence

from tasks.doctor.finding import Finding
from tasks.jobs.ledger import LedgerEntry, as_it_is, known_jobs, unmerged

FAILURES_SHOWN = 5
RECENT_DAYS = 30


def check_failures() -> list[Finding]:
    """Return a finding for each of the newest runs without a merge."""
    return judge_failures(unmerged(known_jobs()), time.time())


def judge_failures(jobs: Sequence[LedgerEntry], now: float) -> list[Finding]:
    """Judge jobs that are not merged, those that changed last first; older ones are history."""
    recent = [entry for entry in jobs if now - entry.since < RECENT_DAYS * 86400]
    failed = [(entry.source, *as_it_is(entry)) for entry in recent]
    failed = [job for job in failed if job[1] != "merging"]
    if not failed:
        text = f"none was refused or failed in the last {RECENT_DAYS} days"
        return [Finding("Training runs", "merges", text)]
    found = [
        Finding("Training runs", source, f"{state}: {sentence}", "warning", _remedy(source, state))
        for source, state, sentence in failed[:FAILURES_SHOWN]
    ]
    if (rest := len(failed) - FAILURES_SHOWN) > 0:
        more = f"{rest} more without a merge"
        found.append(Finding("Training runs", "others", more, "warning", "loreline history lists them"))
    return found


def _remedy(source: str, state: str) -> str:
    return f"{'mend that, then ' if state == 'refused' else ''}loreline watch {source}"
