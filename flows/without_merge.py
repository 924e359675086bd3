"""The runs of this machine's ledger of which there is no merge, as tables and pages show them."""

from tasks.jobs.ledger import as_it_is, known_jobs, unmerged
from tasks.reporting.unmerged_table import UnmergedRun


def runs_without_merge(limit: int | None = None) -> list[UnmergedRun]:
    """Return the runs that were refused, failed or are at work, those that changed last first."""
    return [
        UnmergedRun(entry.since, entry.source, *as_it_is(entry)) for entry in unmerged(known_jobs())[:limit]
    ]
