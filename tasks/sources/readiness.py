"""Whether a Trainer has finished writing a checkpoint."""

import json
from pathlib import Path

from tasks.base.errors import BadInput
from tasks.checkpoints.layout import STATE, read_tensors, weight_files


class NotReady(Exception):
    """A checkpoint that is still being written or was half removed; it may be whole at the next look."""


def check_ready(directory: Path, step: int) -> None:
    """Raise NotReady unless the Trainer has finished this checkpoint, BadInput when it is damaged.

    The Trainer writes weights first and trainer_state.json last: without a matching state the save is under
    way, was cut short, or is being rotated away; with one, a file of the wrong length is damage.
    """
    try:
        state = json.loads((directory / STATE).read_bytes())
        saved_step = state["global_step"]
    except FileNotFoundError:
        raise NotReady(f"has no {STATE}: still being written, or half removed") from None
    except (OSError, ValueError, KeyError, TypeError):
        raise NotReady(f"{STATE} cannot be read yet") from None
    if saved_step != step:
        raise NotReady(f"{STATE} is of step {saved_step}")
    try:
        missing = [path.name for path in weight_files(directory) if not path.exists()]
    except FileNotFoundError:
        raise NotReady("is being removed") from None
    if missing:
        raise NotReady(f"{missing[0]} is missing")
    check_model_files(directory)


def check_model_files(directory: Path) -> None:
    """Raise BadInput unless the directory holds a model: whole safetensors files and a configuration."""
    read_tensors(directory)
    if not (directory / "config.json").is_file():
        raise BadInput(f"{directory}: has no config.json; save the checkpoint with its model configuration")


def file_snapshot(directory: Path) -> frozenset[tuple[str, int, int]]:
    """Return name, size and modification time of every file: equal looks mean that nothing changed."""
    seen = set()
    for path in directory.rglob("*"):
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        seen.add((path.relative_to(directory).as_posix(), status.st_size, status.st_mtime_ns))
    return frozenset(seen)


def logged_metrics(directory: Path, step: int) -> dict[str, float]:
    """Return every number that the Trainer logged at `step`; empty without a readable state."""
    try:
        history = json.loads((directory / STATE).read_bytes())["log_history"]
        entries = [entry for entry in history if entry.get("step") == step]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return {
        key: float(value)
        for entry in entries
        for key, value in sorted(entry.items())
        if key != "step" and isinstance(value, int | float)
    }
