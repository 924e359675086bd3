"""Checking that a checkpoint is complete: the Trainer has finished writing it, or its upload has ended."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path

from tasks.base.errors import BadInput
from tasks.checkpoints.layout import STATE, inside, is_adapter, pickled_state, read_tensors, stored_weights
from tasks.checkpoints.peft.adapter import read_adapter
from tasks.sources.source import FetchedCheckpoint, FetchedRun
from tasks.trajectory.trainer_state import read_state

LOOK_AGAIN_S = 2.0
SETTLED_S = 1.0
"""Seconds without change before a saved state counts: the Trainer removes old checkpoints just after it."""


class NotReady(Exception):
    """A checkpoint that is still being written or partly removed; it may be complete later."""


def check_ready(directory: Path, step: int, convert: bool = False) -> None:
    """Raise NotReady unless the Trainer has finished this checkpoint, BadInput when it is damaged.

    The Trainer writes weights first and trainer_state.json last: without a matching state the save is under
    way, was cut short, or is being rotated away; with one, a file of the wrong length is damage. A pickled
    state is complete where it will be converted: what is in it is seen then.
    """
    if not (directory / STATE).exists():
        raise NotReady(f"has no {STATE}: still being written, or half removed")
    inside(directory, directory / STATE)
    state = read_state(directory)
    if state is None or "global_step" not in state:
        raise NotReady(f"{STATE} cannot be read yet")
    if state["global_step"] != step:
        raise NotReady(f"{STATE} is of step {state['global_step']}")
    if convert and pickled_state(directory):
        return
    try:
        missing = [path.name for path in stored_weights(directory) if not path.exists()]
    except FileNotFoundError:
        raise NotReady("is being removed") from None
    if missing:
        raise NotReady(f"{missing[0]} is missing")
    _check_model_files(directory)


def fetch_patiently(look: Callable[[], FetchedRun], wait: float) -> FetchedRun:
    """Look until no checkpoint has to be left out, or `wait` seconds have passed."""
    deadline = time.monotonic() + wait
    while True:
        run = look()
        if not run.left_out or time.monotonic() >= deadline:
            return run
        time.sleep(min(LOOK_AGAIN_S, max(deadline - time.monotonic(), 0)))


def complete_upload(checkpoints: Iterable[FetchedCheckpoint]) -> FetchedRun:
    """Return a downloaded run after checking that every checkpoint is a complete model of its step.

    Many are uploaded without trainer_state.json: their step is not checked. Raises BadInput for the first
    that is not complete.
    """
    run = FetchedRun(list(checkpoints), left_out=[])
    for checkpoint in run.checkpoints:
        _check_model_files(checkpoint.directory)
        if (checkpoint.directory / STATE).exists():
            try:
                check_ready(checkpoint.directory, checkpoint.step)
            except NotReady as reason:
                raise BadInput(
                    checkpoint.address, f"{reason}; its upload is incomplete", "upload it again"
                ) from None
    return run


def file_snapshot(directory: Path) -> frozenset[tuple[str, int, int]]:
    """Return name, size and modification time of every file: equal snapshots mean that nothing changed."""
    seen = set()
    for path in directory.rglob("*"):
        try:
            status = path.stat()
        except OSError:  # gone since, or a link in a circle
            continue
        seen.add((path.relative_to(directory).as_posix(), status.st_size, status.st_mtime_ns))
    return frozenset(seen)


def _check_model_files(directory: Path) -> None:
    """Raise BadInput unless the directory holds a model or an adapter, whole and with its configuration."""
    if is_adapter(directory):
        read_adapter(directory, directory.name)
        return
    read_tensors(directory)
    if not (directory / "config.json").is_file():
        raise BadInput(directory, "has no config.json", "save the checkpoint with its model configuration")
