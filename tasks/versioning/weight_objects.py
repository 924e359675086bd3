"""DVC's objects of merges that were pruned: their weights only, and only what nothing else names."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

from tasks.base.errors import LorelineError, Unavailable, without_secrets
from tasks.versioning.git import git, git_answer, unusable
from tasks.versioning.shared_cache import default_remote

LISTING = ".dir"
RECORDED = re.compile(rf"\b[0-9a-f]{{32}}(?:\{LISTING})?(?![\w.])")
"""What dvc.lock and .dvc files call an object by."""
PLACES = ("dvc.lock", "*/dvc.lock", "*.dvc")
REVISIONS_AT_ONCE = 200
"""Revisions in one command line."""


class MergeObjects(NamedTuple):
    """The objects of one merge's weights."""

    here: dict[str, int]
    """In the cache: MD5 → bytes."""
    remote: tuple[str, ...]
    """On the default remote: MD5s."""


def merge_objects(
    root: Path, merges: Mapping[str, str], kept: Iterable[str], without_tags: Iterable[str]
) -> dict[str, MergeObjects]:
    """Find the weights of merges (any key → DVC's hash of the directory) that nothing else names.

    Else are: `kept`, hashes of directories; every branch, every tag but `without_tags`, and what lies in a
    work tree, committed or not. Nothing is found outside git and DVC. Raises Unavailable when the remote does
    not answer.
    """
    if unusable(root) or not (root / ".dvc").is_dir() or not merges:
        return {}
    with _stores(root) as (cache, remote):
        stores = [store for store in (cache, remote) if store is not None]
        named = {oid for hash_ in {*kept, *_named(root, set(without_tags))} for oid in _below(stores, hash_)}
        found = {}
        for key, hash_ in merges.items():
            weights = [
                oid
                for oid, name in _listed(stores, hash_)
                if name.endswith(".safetensors") and oid not in named
            ]
            there = tuple(remote.list_oids_exists(weights)) if remote is not None and weights else ()
            found[key] = MergeObjects({oid: _size(cache, oid) for oid in weights if cache.exists(oid)}, there)
    return found


def remove_objects(root: Path, weights: MergeObjects) -> None:
    """Remove objects from the cache and the remote; what is gone already is no error."""
    with _stores(root, locked=True) as (cache, remote):
        for store, oids in ((cache, weights.here), (remote, weights.remote)):
            for oid in oids:
                if store.exists(oid):
                    store.delete(oid)


@contextmanager
def _stores(root: Path, locked: bool = False) -> Iterator[tuple[Any, Any]]:
    """Yield DVC's cache and the store of the default remote, or None; `locked`: under DVC's lock."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(root)) as repo, repo.lock if locked else nullcontext():
            remote = repo.cloud.get_remote_odb() if default_remote(root) else None
            yield repo.cache.local, remote
    except LorelineError:
        raise
    except DvcException as error:
        problem = " ".join(str(error).split())
        raise LorelineError(
            root, f"DVC says: {without_secrets(problem)}", "mend that and run again"
        ) from None
    except OSError as error:
        problem = without_secrets(" ".join(str(error).split()))
        raise Unavailable(
            root, f"DVC's cache or remote fails: {problem}", "run the same command again"
        ) from None


def _listed(stores: Iterable[Any], hash_: str) -> list[tuple[str, str]]:
    """Return the objects of a recorded directory with their names; none where no store has its listing."""
    for store in stores:
        if store.exists(hash_):
            with store.fs.open(store.oid_to_path(hash_), "r") as file:
                return [(entry["md5"], entry["relpath"]) for entry in json.load(file)]
    return []


def _below(stores: Iterable[Any], hash_: str) -> set[str]:
    """Return an object, and those of a directory."""
    return {hash_, *(oid for oid, _ in _listed(stores, hash_))} if hash_.endswith(LISTING) else {hash_}


def _named(root: Path, without_tags: set[str]) -> set[str]:
    """Return every object that a branch, a tag or a work tree names."""
    listed = git(root, "for-each-ref", "--format=%(refname) %(objectname)").splitlines()
    gone = {f"refs/tags/{tag}" for tag in without_tags}
    revisions = sorted({line.split()[1] for line in listed if line.split()[0] not in gone})
    batches = [
        revisions[first : first + REVISIONS_AT_ONCE] for first in range(0, len(revisions), REVISIONS_AT_ONCE)
    ]
    texts = [_grep(root, *batch) for batch in batches]
    for line in git(root, "worktree", "list", "--porcelain").splitlines():
        key, _, place = line.partition(" ")
        if key == "worktree" and Path(place).is_dir():
            texts.append(_grep(Path(place), "--untracked"))
    return {oid for text in texts for oid in RECORDED.findall(text)}


def _grep(directory: Path, *what: str) -> str:
    """Return the lines of DVC's files that may name objects, in revisions or in a work tree."""
    return git_answer(directory, "grep", "-h", "-E", "[0-9a-f]{32}", *what, "--", *PLACES) or ""


def _size(store: Any, oid: str) -> int:
    return Path(store.oid_to_path(oid)).stat().st_size
