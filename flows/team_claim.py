"""Claiming a merge among the machines that share a registry."""

from pydantic import ValidationError

from flows.mark_crashed import mark_crashed
from tasks.jobs.ledger import LedgerEntry
from tasks.jobs.process_owner import lives
from tasks.parameters.registration import RegisterParams
from tasks.registry.team_claim import TeamClaim, take_claim


def claim_in_team(params: RegisterParams, job: str, entry: LedgerEntry) -> TeamClaim | LedgerEntry:
    """Claim a job that this machine's ledger gave to `entry`, or return the entry of the machine that has it.

    Raises Unavailable when the registry does not answer.
    """
    held = take_claim(params, job, entry.model_dump_json(), f"{entry.source} {entry.sentence}", _is_gone)
    if isinstance(held, TeamClaim):
        mark_crashed(_read(held.predecessor))
        return held
    return _read(held) or entry.model_copy(update={"sentence": "is being merged by another machine"})


def _read(holder: str | None) -> LedgerEntry | None:
    try:
        return LedgerEntry.model_validate_json(holder) if holder else None
    except ValidationError:  # of another release
        return None


def _is_gone(holder: str) -> bool:
    entry = _read(holder)
    return entry is not None and lives(entry.owner) is False
