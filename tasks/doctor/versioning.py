"""Checking git and DVC: whether a merge can be committed, cached and pushed."""

import os
import time
from pathlib import Path
from typing import Any

from tasks.base.errors import BadInput, without_secrets
from tasks.doctor.finding import Finding, Level, gigabytes
from tasks.doctor.probe import probe
from tasks.parameters.version import VersionParams
from tasks.versioning.commit import check_branch
from tasks.versioning.git import unusable
from tasks.versioning.git_remote import check_git_remote
from tasks.versioning.shared_cache import default_remote, settings

COUNT_S = 3.0
"""Seconds for adding up a directory's size."""


def check_versioning(params: VersionParams, root: Path) -> list[Finding]:
    """Check the git repository, the branch for merges, and DVC's cache."""
    return [_git(params, root), _cache(root)]


def check_remote(params: VersionParams, root: Path) -> list[Finding]:
    """Check that DVC's default remote answers: a problem with version.push, else a warning."""
    if not (root / ".dvc").is_dir():
        return []
    name = default_remote(root)
    if name is None and not params.push:
        return [Finding("Versioning", "remote", "none: merged models stay on this machine")]
    if name is None:
        remedy = "dvc remote add --default NAME URL, or version.push: false"
        return [Finding("Versioning", "remote", "version.push is set, but there is none", "problem", remedy)]
    return [_remote(name, params.push, dict(settings(root)))]


def cache_directory(root: Path) -> Path:
    """Return DVC's cache directory."""
    return Path(settings(root).get("cache", {}).get("dir") or root / ".dvc" / "cache")


def size_of(directory: Path, seconds: float) -> tuple[int, bool]:
    """Return the bytes below a directory, and whether `seconds` sufficed for all of it."""
    total, deadline = 0, time.monotonic() + seconds
    for folder, _, names in os.walk(directory):
        total += sum(_bytes(Path(folder, name)) for name in names)
        if time.monotonic() > deadline:
            return total, False
    return total, True


def _bytes(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:  # gone since it was listed
        return 0


def _git(params: VersionParams, root: Path) -> Finding:
    if problem := unusable(root):
        text = f"merges get no commit: {problem.problem}"
        return Finding("Versioning", "git", text, "warning", problem.remedy)
    try:
        check_branch(root, params.branch)
        if params.push and params.git_remote:
            check_git_remote(root, params.git_remote)
    except BadInput as error:
        return Finding("Versioning", "git", f"{error.subject}: {error.problem}", "problem", error.remedy)
    return Finding("Versioning", "git", f"merges go to the branch {params.branch}")


def _cache(root: Path) -> Finding:
    if not (root / ".dvc").is_dir():
        text = "merged models are not kept: not a DVC repository"
        return Finding("Versioning", "DVC", text, "warning", "dvc init")
    place = cache_directory(root)
    if not place.is_dir():
        return Finding("Versioning", "DVC", f"the cache {place} will be made by the first run")
    total, whole = size_of(place, COUNT_S)
    return Finding(
        "Versioning", "DVC", f"the cache {place} holds {'' if whole else 'over '}{gigabytes(total)}"
    )


def _remote(name: str, push: bool, config: dict[str, Any]) -> Finding:
    from dvc.fs import get_cloud_fs

    level: Level = "problem" if push else "warning"
    place = name
    try:
        kind, options, path = get_cloud_fs(config, name=name)
        place = f"{name}, {without_secrets(str(config['remote'][name]['url']))}"
        if kind.protocol == "local":
            problem = "" if writable(Path(path)) else "is not writable"
        elif kind.protocol in ("http", "https"):  # its exists() returns False when there is no answer
            problem = "" if probe(str(config["remote"][name]["url"])) else "does not answer"
        else:
            kind(**options).exists(path)
            problem = ""
    except Exception as error:  # each kind of remote raises its own
        problem = f"does not answer ({without_secrets(' '.join(str(error).split()))[:200]})"
    if not problem:
        return Finding("Versioning", "remote", place)
    remedy = f"mend it, or dvc remote modify {name} url URL; merges that wait are pushed by the next run"
    return Finding("Versioning", "remote", f"{place} {problem}", level, remedy)


def nearest(place: Path) -> Path:
    """Return a directory, or the nearest one above it that is there or hidden from this user."""
    for path in (place, *place.parents):
        try:
            path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError:
            pass
        return path
    return Path(place.anchor)


def writable(place: Path) -> bool:
    """Tell whether this process may write in a directory, or make it."""
    effective = os.access in os.supports_effective_ids
    return os.access(nearest(place.absolute()), os.W_OK | os.X_OK, effective_ids=effective)
