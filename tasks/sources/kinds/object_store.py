"""Training runs in object stores, s3://bucket/run and every other address that fsspec knows."""

import logging
import re
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tasks.base.directories import cache_dir
from tasks.base.errors import BadInput
from tasks.base.held_lock import held_lock
from tasks.base.json_digest import digest_of
from tasks.base.json_files import MAX_JSON
from tasks.base.publish import is_published, link_or_copy, publishing
from tasks.base.records.training_run import LeftOut
from tasks.checkpoints.layout import ADAPTER_WEIGHTS, INDEX, SINGLE, STATE
from tasks.checkpoints.names import numbered
from tasks.parameters.fetch import FetchParams
from tasks.parameters.registration import RegisterParams
from tasks.sources.object_cache import Arrivals, bring_object, lacking_bytes, prune_objects
from tasks.sources.object_client import (
    StoredObject,
    check_store_address,
    folders_in,
    is_store_address,
    open_store,
    store_errors,
    wanted_objects,
)
from tasks.sources.readiness import SETTLED_S, NotReady, check_ready, fetch_patiently
from tasks.sources.room import check_room
from tasks.sources.run_status import RunStatus, status_of
from tasks.sources.source import FetchedCheckpoint, FetchedRun, RunSource
from tasks.trajectory.trainer_state import read_state, says_ended, step_of_steps

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

log = logging.getLogger(__name__)

TRIES = 3
"""How often a checkpoint is listed and read whose objects change meanwhile."""
SHARD = re.compile(r"(.+)-[0-9]+-of-([0-9]+)\.safetensors")


class ObjectStoreSource(RunSource):
    """A folder of a store with checkpoint-N folders, as a Trainer's output_dir that is copied there."""

    def matches(self, address: str) -> bool:
        """Match what starts with a protocol of fsspec, such as s3://, but hf://."""
        return is_store_address(address)

    def run_name(self, address: str) -> str:
        """Return the folder's name."""
        return address.rstrip("/").rpartition("/")[2]

    def observe(self, address: str, quiet_for: float, registry: RegisterParams) -> RunStatus:
        """Return the status from names, checksums and times of the objects, and the newest saved state.

        In a store that tells no times a run has ended only when its state says so.
        """
        run = _open_run(address)
        seen = run.look()
        digest = digest_of([(one.name, [(each.name, each.version) for each in one.files]) for one in seen])
        state = _state(run, seen[-1])
        times = [each.modified for one in seen for each in one.files if each.modified is not None]
        age = max(time.time() - max(times, default=0.0), 0.0)  # the store's clock may be ahead
        doubt = _doubt(seen, state, age)
        place = doubt or step_of_steps(state)
        said = not doubt and says_ended(state)
        if not times and not said:
            return RunStatus(digest, False, f"still training: {place}, and the store tells no times")
        return status_of(digest, said, place, age, quiet_for)

    def fetch(self, params: FetchParams, registry: RegisterParams) -> FetchedRun:
        """Download what the cache lacks; for what is incomplete wait up to `params.wait` seconds."""
        run = _open_run(params.address)
        with run.locked():
            return fetch_patiently(partial(_look_twice, run, params.settle), params.wait)

    def restore(self, address: str) -> Path:
        """Return the cached directory of a checkpoint, downloaded again where it is not there any more."""
        place, _, name = address.rpartition("/")
        run = _open_run(place)
        for step, _ in numbered([name]):
            if not (run.cached / name).is_dir():
                with run.locked(), suppress(NotReady):
                    _bring(run, run.look_at(step, name), Arrivals(run.address, 0))
            return run.cached / name
        raise BadInput(
            "checkpoint source", "names no checkpoint-N folder", "write s3://bucket/run/checkpoint-N"
        )

    def runs_in(self, root: str, project: Path, registry: RegisterParams) -> Iterator[str]:
        """List the folders directly below a root that hold a checkpoint-N; one that does is a run itself."""
        root = root.rstrip("/")
        check_store_address(root, "watch.roots")
        store, path = open_store(root)
        with store_errors(root):
            folders = folders_in(store, path)
            if numbered(folders):
                yield root
                return
            for name in folders:
                if numbered(folders_in(store, f"{path}/{name}")):
                    yield f"{root}/{name}"


class _Seen(NamedTuple):
    """A checkpoint-N folder at one moment."""

    step: int
    name: str
    files: list[StoredObject]
    """What fetch would take."""

    @property
    def doubt(self) -> str:
        """Why it is incomplete; empty where its names do not tell."""
        names = {each.name for each in self.files}
        if STATE not in names:
            return f"has no {STATE}: still being copied, or half removed"
        if not names & {SINGLE, INDEX, ADAPTER_WEIGHTS}:
            return "has no weights in safetensors: still being copied, or saved in pickles"
        shards = Counter((match[1], int(match[2])) for match in map(SHARD.fullmatch, names) if match)
        few = next((f"{count} of {of}" for (_, of), count in shards.items() if count < of), "")
        return f"has {few} shards: still being copied, or half removed" if few else ""


class _Run(NamedTuple):
    """A run in a store."""

    address: str
    store: "AbstractFileSystem"
    path: str

    @property
    def cached(self) -> Path:
        """Where its checkpoints are kept, in the user's cache."""
        return cache_dir() / "stores" / digest_of(self.address)[:32]

    @property
    def objects(self) -> Path:
        """Where its objects are kept, of which checkpoints are links."""
        return self.cached / "objects"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from downloading the same."""
        self.objects.mkdir(parents=True, exist_ok=True)
        with held_lock(self.cached / "lock", f"the process that fetches {self.address}", log.warning):
            yield

    def look(self) -> list[_Seen]:
        """List the checkpoints by step; raises BadInput where there is none."""
        with store_errors(self.address):
            found = numbered(folders_in(self.store, self.path))
        if not found:
            raise BadInput(
                "fetch.source",
                f"{self.address}: holds no checkpoint-N folder",
                "name the folder that a Trainer's output_dir was copied to",
            )
        return [self.look_at(step, name) for step, name in found]

    def look_at(self, step: int, name: str) -> _Seen:
        """List what would be fetched of a checkpoint: nothing where it is gone."""
        with store_errors(self.address):
            try:
                return _Seen(step, name, wanted_objects(self.store, f"{self.path}/{name}"))
            except FileNotFoundError:
                return _Seen(step, name, [])


def _open_run(address: str) -> _Run:
    address = address.rstrip("/")
    check_store_address(address, "fetch.source")
    return _Run(address, *open_store(address))


def _doubt(seen: list[_Seen], state: dict[str, Any], age: float) -> str:
    """Return why the objects may not be the run's last; empty when they are."""
    for one in reversed(seen):
        if one.doubt:
            return f"{one.name} {one.doubt}"
    if state.get("global_step") != seen[-1].step:
        return f"{seen[-1].name}/{STATE} cannot be read, or is of another step"
    return f"{step_of_steps(state)} but still changing" if age < SETTLED_S else ""


def _state(run: _Run, newest: _Seen) -> dict[str, Any]:
    """Return the trainer_state.json of a checkpoint; empty where it has none that can be read."""
    for found in newest.files:
        if found.name == STATE and found.size <= MAX_JSON:
            with store_errors(run.address):
                content = run.store.cat_file(found.path)
            with tempfile.TemporaryDirectory() as place:
                Path(place, STATE).write_bytes(content)
                return read_state(Path(place)) or {}
    return {}


def _look_twice(run: _Run, settle: float) -> FetchedRun:
    """Bring the checkpoints that are complete and unchanged in a second look, `settle` seconds later."""
    began, seen = time.monotonic(), run.look()
    files = [each for one in seen if not one.doubt for each in one.files]
    check_room(run.objects, lacking_bytes(files, run.objects), "set XDG_CACHE_HOME")
    arrivals = Arrivals(run.address, sum(each.size for one in seen for each in one.files))
    found, brought = FetchedRun([], []), []
    for one in seen:
        try:
            brought.append(_bring_current(run, one, arrivals))
        except NotReady as reason:
            found.left_out.append(LeftOut(name=one.name, reason=str(reason)))
    arrivals.end()
    prune_objects(run.objects, [each for one in (*seen, *brought) for each in one.files])
    time.sleep(max(settle - (time.monotonic() - began), 0))
    for one in brought:
        checkpoint = FetchedCheckpoint(one.step, one.name, run.cached / one.name, f"{run.address}/{one.name}")
        try:
            _check_settled(run, one, checkpoint)
            found.checkpoints.append(checkpoint)
        except NotReady as reason:
            found.left_out.append(LeftOut(name=one.name, reason=str(reason)))
    return found


def _check_settled(run: _Run, brought: _Seen, checkpoint: FetchedCheckpoint) -> None:
    if run.look_at(brought.step, brought.name) != brought:
        raise NotReady("is still changing")
    try:
        check_ready(checkpoint.directory, checkpoint.step)
    except BadInput as error:
        raise error.within(checkpoint.address) from None


def _bring_current(run: _Run, seen: _Seen, arrivals: Arrivals) -> _Seen:
    """Bring a checkpoint, looking again when it changes meanwhile, and return what was brought."""
    for _ in range(TRIES - 1):
        try:
            _bring(run, seen, arrivals)
            return seen
        except NotReady:
            seen = run.look_at(seen.step, seen.name)
    _bring(run, seen, arrivals)
    return seen


def _bring(run: _Run, seen: _Seen, arrivals: Arrivals) -> None:
    """Bring a checkpoint into the cache; an object that is there is not read again."""
    if seen.doubt:
        raise NotReady(seen.doubt)
    made_from = digest_of([(each.name, each.version) for each in seen.files])
    target = run.cached / seen.name
    if is_published(target, made_from):
        arrivals.kept(sum(each.size for each in seen.files))
        return
    files = {
        each.name: bring_object(run.store, f"{run.address}/{seen.name}", each, run.objects, arrivals)
        for each in seen.files
    }
    with publishing(target, made_from, owned=True) as scratch:
        for name, path in files.items():
            link_or_copy(path, scratch / name)
