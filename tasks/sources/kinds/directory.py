"""Training runs that are directories on this machine: a Trainer's output_dir with its checkpoint-N."""

import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from glob import glob, has_magic
from pathlib import Path
from typing import Any, NamedTuple

from tasks.base.errors import BadInput
from tasks.base.json_digest import digest_of
from tasks.base.records.training_run import LeftOut
from tasks.checkpoints.layout import STATE, pickled_state, side_files, wanted_files
from tasks.checkpoints.run_directory import kept_means, numbered_checkpoints, place_in
from tasks.parameters.fetch import FetchParams
from tasks.parameters.registration import RegisterParams
from tasks.sources.readiness import SETTLED_S, NotReady, check_ready, fetch_patiently, file_snapshot
from tasks.sources.run_status import RunStatus, newest_change, status_of
from tasks.sources.source import FetchedCheckpoint, FetchedRun, RunSource
from tasks.trajectory.trainer_state import read_state, says_ended, step_of_steps


class DirectorySource(RunSource):
    """A path; any text can be one, so it takes what no other kind matches."""

    asked_last = True

    def matches(self, address: str) -> bool:
        """Take every address."""
        return True

    def normal_form(self, address: str, project: Path) -> str:
        """Return a directory inside the project relative to it, any other absolute, links followed."""
        place, project = (project / address).resolve(), project.resolve()
        return str(place.relative_to(project) if place.is_relative_to(project) else place)

    def run_name(self, address: str) -> str:
        """Return the directory's name."""
        return Path(address).resolve().name

    def directory_of(self, address: str) -> Path:
        """Return the directory itself."""
        return Path(address)

    def observe(self, address: str, quiet_for: float, registry: RegisterParams) -> RunStatus:
        """Return the status from names, sizes, times and the saved state; files may change meanwhile."""
        seen = [_see(step, path) for step, path in _checkpoints_in(address)]
        now, root = time.time(), Path(address)
        state = read_state(seen[-1].directory) or {}
        doubt = _doubt(seen, state, now)
        said = not doubt and (says_ended(state) or _saved_at_the_end(root, seen[-1]))
        age = now - newest_change(root)
        digest = digest_of([(one.directory.name, one.files) for one in seen])
        return status_of(digest, said, doubt or step_of_steps(state), age, quiet_for)

    def fetch(self, params: FetchParams, registry: RegisterParams) -> FetchedRun:
        """Repeat until every checkpoint is complete and unchanging, or `params.wait` seconds have passed."""
        run = fetch_patiently(partial(_look_twice, params), params.wait)
        return run._replace(means=_means(params.address)) if params.means else run

    def restore(self, address: str) -> Path:
        """Return the directory, or where the callback kept it, whether it exists or not."""
        return place_in(Path(address).parent, Path(address).name)

    def runs_in(self, root: str, project: Path, registry: RegisterParams) -> Iterator[str]:
        """List the directories of a glob that hold a checkpoint; without wildcards it has to be there."""
        if not has_magic(root) and not (project / root).is_dir():
            raise BadInput(
                "watch.roots", f"{root}: no such directory", "correct it, or write a glob such as runs/*"
            )
        found = glob(root, root_dir=project, recursive=True)  # noqa: PTH207 (Path.glob walks hidden ones too)
        yield from (path for path in found if _holds_checkpoints(project / path))


def _checkpoints_in(address: str) -> list[tuple[int, Path]]:
    """List the checkpoint-N of a run by step; raises BadInput when there is no such run, or none in it."""
    try:
        found = numbered_checkpoints(Path(address))
    except (FileNotFoundError, NotADirectoryError):
        raise BadInput(
            "fetch.source",
            f"{address}: no such directory",
            "name a Trainer's output directory, or an address such as s3://bucket/run, hf://org/name or "
            "mlflow:/runs/RUN_ID/PATH",
        ) from None
    except OSError as error:
        raise BadInput("fetch.source", f"{address}: cannot be read ({error.strerror})", "allow it") from None
    if not found:
        raise BadInput(
            "fetch.source", f"{address}: holds no checkpoint-N directory", "is it a Trainer's output_dir?"
        )
    return found


def _holds_checkpoints(directory: Path) -> bool:
    try:
        return bool(numbered_checkpoints(directory))
    except OSError:  # no directory, not ours to read, or gone since it was listed
        return False


def _look_twice(params: FetchParams) -> FetchedRun:
    """Return the checkpoints that are complete and do not change for `params.settle` seconds."""
    found = [
        FetchedCheckpoint(step, path.name, path, f"{params.address.rstrip('/')}/{path.name}")
        for step, path in _checkpoints_in(params.address)
    ]
    before = [file_snapshot(checkpoint.directory) for checkpoint in found]
    time.sleep(params.settle)
    run = FetchedRun([], [])
    for checkpoint, seen in zip(found, before, strict=True):
        try:
            if file_snapshot(checkpoint.directory) != seen:
                raise NotReady("is still changing")
            check_ready(checkpoint.directory, checkpoint.step, params.convert)
            run.checkpoints.append(checkpoint)
        except NotReady as reason:
            run.left_out.append(LeftOut(name=checkpoint.name, reason=str(reason)))
    return run


def _means(source: str) -> list[FetchedCheckpoint]:
    """Return the means that the callback kept of a run; they appear whole, and are checked as models are."""
    return [
        FetchedCheckpoint(step, path.name, path, f"{source.rstrip('/')}/{path.name}", count)
        for step, count, path in kept_means(Path(source))
    ]


class _Seen(NamedTuple):
    """A checkpoint-N directory at one moment."""

    step: int
    directory: Path
    files: list[tuple[str, int, int]]
    """Name, size and modification time (ns) of what fetch would take; none while it is incomplete."""
    doubt: str
    """Why it is incomplete; empty when it is complete."""


def _see(step: int, directory: Path) -> _Seen:
    if not (directory / STATE).is_file():
        return _Seen(step, directory, [], f"has no {STATE}: still being written, or half removed")
    try:
        state = pickled_state(directory)
        wanted = [*state.files, *side_files(directory)] if state else wanted_files(directory)
        stated = [(path.name, path.stat()) for path in wanted]
    except OSError:
        return _Seen(step, directory, [], "misses a file: still being written, or half removed")
    except BadInput:  # it cannot be used, and fetch says why
        return _Seen(step, directory, [], "")
    return _Seen(step, directory, [(name, at.st_size, at.st_mtime_ns) for name, at in stated], "")


def _doubt(seen: list[_Seen], state: dict[str, Any], now: float) -> str:
    """Return why the files may not be the run's last; empty when they are."""
    for one in reversed(seen):
        if one.doubt:
            return f"{one.directory.name} {one.doubt}"
    newest = seen[-1]
    if state.get("global_step") != newest.step:
        return f"{newest.directory.name}/{STATE} cannot be read yet"
    if now - max(newest_change(one.directory) for one in seen) < SETTLED_S:
        return f"{step_of_steps(state)} but still changing"
    return ""


def _saved_at_the_end(root: Path, newest: _Seen) -> bool:
    """Tell whether trainer.save_state() was called after the newest checkpoint."""
    step = (read_state(root) or {}).get("global_step")
    with suppress(OSError):
        later = (root / STATE).stat().st_mtime >= (newest.directory / STATE).stat().st_mtime
        return later and isinstance(step, int) and step >= newest.step
    return False
