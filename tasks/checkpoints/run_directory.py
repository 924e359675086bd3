"""A Trainer's output directory: its own checkpoints, and those that MergeAfterTraining kept beside it."""

import json
from pathlib import Path

from tasks.base.errors import BadInput
from tasks.base.json_files import read_json
from tasks.checkpoints.layout import MEAN, STATE, inside
from tasks.checkpoints.names import numbered


def numbered_checkpoints(run: Path) -> list[tuple[int, Path]]:
    """List the checkpoint-N directories of a run by step, its own before those that were kept of it.

    Raises OSError when `run` cannot be listed.
    """
    own = _numbered_in(run)
    found = _kept_checkpoints(run, own)
    found |= {step: path for step, path in own.items() if step not in found or (path / STATE).is_file()}
    return sorted(found.items())


def kept_means(run: Path) -> list[tuple[int, int, Path]]:
    """List the means that were kept of a run, by step: step, number of steps averaged, directory.

    Raises BadInput for one that does not say how many steps it is of.
    """
    beside = [
        (step, path.with_name(f"mean-{step}"))
        for step, path in _kept_checkpoints(run, _numbered_in(run)).items()
    ]
    return [(step, _count(mean), mean) for step, mean in sorted(beside) if mean.is_dir()]


def place_in(run: Path, name: str) -> Path:
    """Return the directory of a run's checkpoint or mean, where it is itself or where it was kept."""
    own, kept = run / name, _kept_beside(run) / name
    return own if own.is_dir() or not kept.is_dir() else kept


def _kept_beside(run: Path) -> Path:
    """Return where `loreline.keeping` keeps the checkpoints of an output directory."""
    run = run.resolve()
    return run.parent / f".{run.name}.kept"


def _numbered_in(directory: Path) -> dict[int, Path]:
    found = numbered(path.name for path in directory.iterdir())
    return {step: directory / name for step, name in found if (directory / name).is_dir()}


def _kept_checkpoints(run: Path, own: dict[int, Path]) -> dict[int, Path]:
    """Return the kept checkpoints of the training that the run's own are of, by step.

    An earlier training in the same place may have left others: the log of each has to be how the newest
    checkpoint's own log began.
    """
    kept = _kept_beside(run)
    logs = (log for _, path in sorted(own.items(), reverse=True) if (log := _log(path)) is not None)
    if not kept.is_dir() or (newest := next(logs, None)) is None:
        return {}
    there = {step: path for step, path in _numbered_in(kept).items() if step <= max(own)}
    return {step: path for step, path in there.items() if _begins(newest, _log(path))}


def _begins(log: list[str], start: list[str] | None) -> bool:
    return start is not None and log[: len(start)] == start


def _log(checkpoint: Path) -> list[str] | None:
    """Return a log's entries as text, in which NaN equals NaN; None while it cannot be read."""
    try:
        history = read_json(inside(checkpoint, checkpoint / STATE)).get("log_history", [])
    except BadInput:
        return None
    return [json.dumps(entry) for entry in history] if isinstance(history, list) else []


def _count(mean: Path) -> int:
    count = read_json(inside(mean, mean / MEAN)).get("count")
    if not isinstance(count, int) or count < 1:
        raise BadInput(mean / MEAN, "does not say of how many steps the mean is", "remove that mean")
    return count
