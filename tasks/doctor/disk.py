"""Checking that the next merge fits on the disks, and finding workspaces of runs that have failed."""

import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from tasks.base.directories import state_dir
from tasks.base.errors import BadInput
from tasks.base.model_files import address_directory
from tasks.checkpoints.layout import is_adapter, pickled_state, wanted_files
from tasks.checkpoints.run_directory import numbered_checkpoints
from tasks.doctor.finding import Finding, Level, gigabytes
from tasks.doctor.training_runs import local_runs
from tasks.doctor.versioning import COUNT_S, cache_directory, nearest, size_of, writable
from tasks.jobs.ledger import idle_workspaces
from tasks.parameters.params import Params
from tasks.sources.base_model import base_address
from tasks.versioning.shared_cache import links_outputs


class Need(NamedTuple):
    """Bytes that the next merge will write to a directory."""

    place: Path
    size: int
    what: str


class Disk(NamedTuple):
    """A file system."""

    place: Path
    free: int


def check_disk(params: Params, root: Path) -> list[Finding]:
    """Check the state directory, free space, and workspaces of runs that have failed."""
    state = _state_directory()
    if state.level == "problem":
        return [state]
    wanted = needs(params, root, *_newest_run(params, root))
    return [state, *judge_space(wanted, disk_of), *_copies(root), *_leftovers()]


def told_space(params: Params, root: Path, run: Path) -> list[str]:
    """Say what a merge of a run would write, a line for each disk."""
    found = judge_space(needs(params, root, run.resolve(), _sizes(run)), disk_of)
    return [f"Disk {finding.subject}: {finding.found}." for finding in found]


def needs(params: Params, root: Path, source: Path | None, sizes: Mapping[str, int]) -> list[Need]:
    """List what a merge of a run writes; `sizes`: bytes read from each checkpoint, oldest first."""
    by_hand = source is None or source in [(root / own).resolve() for own in params.fetch.runs]
    artifacts = root / "artifacts" if by_hand else state_dir() / "runs"
    model = _merged_size(params, source, sizes)
    found = [Need(artifacts, 2 * model, "the merge, and the average it is compared with")]
    converted = {name for name in sizes if source and _is_converted(params, source / name)}
    copied = {name for name in sizes if source and name not in converted and not _together(source, artifacts)}
    if converted:
        size = sum(sizes[name] for name in converted)
        found.append(Need(artifacts, size, f"at most, of {len(converted)} checkpoints that are converted"))
    if copied:
        found.append(
            Need(artifacts, sum(sizes[name] for name in copied), f"copies of {len(copied)} checkpoints")
        )
    if (root / ".dvc").is_dir() and not _links(root, artifacts, by_hand):
        found.append(Need(cache_directory(root), model, "DVC's copy"))
    if not params.register_.tracking_uri and not _together(state_dir(), artifacts):
        found.append(Need(state_dir() / "mlartifacts", model, "MLflow's copy"))
    return found


def disk_of(place: Path) -> Disk:
    """Return the file system of a directory, existing or not."""
    there = nearest(place.absolute())
    mount = next(path for path in (there, *there.parents) if path.is_mount())
    return Disk(mount, shutil.disk_usage(there).free)


def judge_space(wanted: Iterable[Need], disk_of: Callable[[Path], Disk]) -> list[Finding]:
    """Compare free space on each file system with what will be written there."""
    disks: dict[Disk, list[Need]] = {}
    for need in wanted:
        disks.setdefault(disk_of(need.place), []).append(need)
    return [_space(disk, there) for disk, there in disks.items()]


def _space(disk: Disk, there: list[Need]) -> Finding:
    total, free = sum(need.size for need in there), f"{gigabytes(disk.free)} free"
    if not total:
        return Finding("Disk", str(disk.place), f"{free}; there is no run yet to tell what a merge needs")
    what = " + ".join(f"{gigabytes(need.size)} {need.what}" for need in there)
    text = f"{free}, the next merge needs {gigabytes(total)} ({what})"
    level: Level = "problem" if disk.free < total else "warning" if disk.free < 2 * total else "ok"
    remedy = (
        ""
        if level == "ok"
        else "free some space: loreline prune shows what old merges hold, and removes it with --yes"
    )
    return Finding("Disk", str(disk.place), text, level, remedy)


def _state_directory() -> Finding:
    if not writable(state_dir()):
        remedy = "allow it, or name another directory in LORELINE_HOME"
        return Finding("Disk", "state", f"{state_dir()} is not writable", "problem", remedy)
    return Finding(
        "Disk", "state", f"{state_dir()}{'' if state_dir().is_dir() else ' will be made by the first run'}"
    )


def _newest_run(params: Params, root: Path) -> tuple[Path | None, dict[str, int]]:
    """Return the run that changed last, and checkpoint name → bytes, 0 for one that cannot be used."""
    runs = [directory.resolve() for directory in local_runs(params, root).values()]
    if not runs:
        return None, {}
    newest = max(runs, key=lambda run: run.stat().st_mtime)
    return newest, _sizes(newest)


def _sizes(run: Path) -> dict[str, int]:
    return {path.name: _size(path) for _, path in numbered_checkpoints(run)}


def _size(checkpoint: Path) -> int:
    try:
        state = pickled_state(checkpoint)
        return sum(path.stat().st_size for path in (state.files if state else wanted_files(checkpoint)))
    except (BadInput, OSError):  # fetch says why
        return 0


def _is_converted(params: Params, checkpoint: Path) -> bool:
    try:
        return params.fetch.convert and pickled_state(checkpoint) is not None
    except BadInput:  # fetch says why
        return False


def _merged_size(params: Params, source: Path | None, sizes: Mapping[str, int]) -> int:
    """Return bytes of a merge: a checkpoint's; of adapters their sum, as ranks add up, or their base's."""
    if source is None or not sizes:
        return 0
    newest = [*sizes][-max(params.select.k, 2) :]
    if not is_adapter(source / newest[-1]):
        return sizes[newest[-1]]
    if not (params.merge.full or params.merge.base):
        return sum(sizes[name] for name in newest)
    try:
        base = params.merge.base or base_address(params.fetch.base, [source / newest[-1]])
    except BadInput:  # the plan of the merge says why
        return 0
    return _size(address_directory(base)) if base else 0


def _together(one: Path, other: Path) -> bool:
    """Tell whether two places are on one file system, so that files can be linked."""
    return nearest(one.absolute()).stat().st_dev == nearest(other.absolute()).stat().st_dev


def _links(root: Path, artifacts: Path, by_hand: bool) -> bool:
    """Tell whether a merge and DVC's copy of it are one file; workspaces are set to link."""
    return _together(cache_directory(root), artifacts) and (not by_hand or links_outputs(root))


def _copies(root: Path) -> list[Finding]:
    """Say how often DVC and MLflow keep a model that is merged in this checkout."""
    if not (root / ".dvc").is_dir():
        return []
    if _links(root, root / "artifacts", by_hand=True):
        text = "a merged model takes its space once on a disk: artifacts/, DVC and MLflow link it"
    elif _together(cache_directory(root), root / "artifacts"):
        text = (
            "a model merged in artifacts/ is copied twice by DVC, but where the file system clones files; "
            "dvc config cache.type hardlink,copy makes it links, which are read-only"
        )
    else:
        text = "a merged model lies twice: DVC's cache is on another disk than artifacts/"
    return [Finding("Disk", "copies", text)]


def _leftovers() -> list[Finding]:
    """Report the workspaces in which no process is working."""
    place = state_dir() / "runs"
    left = idle_workspaces(place)
    if not left:
        return []
    total = sum(size_of(path, COUNT_S / len(left))[0] for path in left)
    text = f"{len(left)} in {place} hold {gigabytes(total)}, and nobody works in them: {left[0].name}, …"
    remedy = "run loreline watch, which takes up what failed; loreline prune --yes removes old ones"
    return [Finding("Disk", "workspaces", text, "warning", remedy)]
