"""Results on disk: one file per model, task and settings; a damaged file counts as missing."""

import os
import tempfile
from pathlib import Path

from tasks.base.directories import state_dir
from tasks.base.errors import BadInput, LorelineError
from tasks.base.json_digest import digest_of
from tasks.base.records.record import Record
from tasks.evaluation.results import TaskResult


class _Stored(Record):
    digest: str
    result: TaskResult


def cache_path(key: str) -> Path:
    """Return the file of the result with this key."""
    return state_dir() / "evaluations" / f"{key}.json"


def answers_path(result: Path) -> Path:
    """Return the file of the answers from which the result in `result` is being made."""
    return result.parent / "partial" / f"{result.stem}.jsonl"


def old_results(before: float) -> list[Path]:
    """List the results and unfinished answers that were written before a time, in seconds since 1970."""
    directory = state_dir() / "evaluations"
    files = [*directory.glob("*.json"), *(directory / "partial").glob("*.jsonl")]
    return sorted(path for path in files if path.stat().st_mtime < before)


def load(path: Path) -> TaskResult | None:
    """Read a result; None when there is none or it is damaged."""
    try:
        stored = _Stored.read(path)
    except BadInput:
        return None
    return stored.result if stored.digest == digest_of(stored.result) else None


def store(path: Path, result: TaskResult) -> None:
    """Write a result atomically; raises LorelineError where that is not possible."""
    stored = _Stored(digest=digest_of(result), result=result)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".", dir=path.parent) as scratch:
            beside = Path(scratch) / path.name
            stored.write(beside)
            with beside.open("rb") as file:
                os.fsync(file.fileno())
            beside.replace(path)
    except OSError as error:
        raise LorelineError(
            path,
            f"cannot be written ({error.strerror})",
            "make room there, or set LORELINE_HOME elsewhere",
        ) from error
