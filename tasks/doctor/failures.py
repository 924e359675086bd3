"""Naming the training runs whose merge was refused, failed or was killed."""

from collections.abc import Sequence

from tasks.doctor.finding import Finding
from tasks.jobs.ledger import LedgerEntry, as_it_is, known_jobs, unmerged

FAILURES_SHOWN = 5


def check_failures() -> list[Finding]:
    """Return a finding for each of the newest runs without a merge."""
    return judge_failures(unmerged(known_jobs()))


def judge_failures(jobs: Sequence[LedgerEntry]) -> list[Finding]:
    """Judge jobs that are not merged, those that changed last first."""
    failed = [(entry.source, *as_it_is(entry)) for entry in jobs]
    failed = [job for job in failed if job[1] != "merging"]
    if not failed:
        return [Finding("Training runs", "merges", "none that is known was refused or failed")]
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
