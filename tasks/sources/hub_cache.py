"""The Hub's cache on this machine: commits of branches, and files that are downloaded once and verified."""

import hashlib
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from urllib.parse import quote

from tasks.base.digests import sha256_of
from tasks.base.directories import hub_cache_dir
from tasks.base.errors import BadInput, Unavailable
from tasks.base.hub_client import ask, endpoint, offline, patiently
from tasks.checkpoints.layout import READABLE, is_readable

COMMIT_HASH = re.compile(r"[0-9a-f]{40}")
REF = re.compile(r"(?!.*\.\.)[\w.+=#,-]+(?:/[\w.+=#,-]+)*")


def ref_names(repo: str) -> list[str]:
    """List the branches and tags of a repository; offline, those that the cache knows."""
    if offline():
        refs = hub_cache_dir(repo) / "refs"
        return sorted(path.relative_to(refs).as_posix() for path in refs.rglob("*") if path.is_file())
    listed = ask(f"{repo}/refs")
    names = {str(ref["name"]) for kind in ("branches", "tags") for ref in listed[kind]}
    return sorted(name for name in names if REF.fullmatch(name))


def commit_of(repo: str, revision: str) -> str:
    """Return the commit that a revision points at now; offline, the one that the cache recorded last."""
    if COMMIT_HASH.fullmatch(revision):
        return revision
    note = hub_cache_dir(repo) / "refs" / revision
    if offline() and not note.is_file():
        raise Unavailable(
            f"hf://{repo}@{revision}", "is not in the cache", "unset HF_HUB_OFFLINE to look it up"
        )
    if offline():
        return note.read_text().strip()
    commit = str(ask(f"{repo}/revision/{quote(revision, safe='')}")["sha"])
    if not COMMIT_HASH.fullmatch(commit):
        raise ValueError("not a commit")
    with suppress(OSError):  # recorded for offline use; a read-only cache is fine
        note.parent.mkdir(parents=True, exist_ok=True)
        partial = note.with_name(f"{note.name}.{os.getpid()}.tmp")
        partial.write_text(commit)
        partial.replace(note)
    return commit


def snapshot(repo: str, commit: str, folder: str = "") -> Path:
    """Return the local root of a commit once all wanted files directly in `folder` are there and verified.

    `folder` may be a glob. Raises BadInput for a damaged file, or one that lies outside the cache.
    """
    from huggingface_hub import snapshot_download

    root = hub_cache_dir(repo) / "snapshots" / commit
    if (lacking := _lacking(root, wanted(repo, commit, folder))) and offline():
        raise Unavailable(
            f"hf://{repo}@{commit}", f"the cache lacks {lacking}", "unset HF_HUB_OFFLINE to download it"
        )
    if lacking:
        prefix = f"{folder}/" if folder else ""
        patiently(
            lambda: snapshot_download(
                repo,
                revision=commit,
                allow_patterns=[prefix + pattern for pattern in READABLE],
                ignore_patterns=[f"{prefix}*/*"],
                endpoint=endpoint(),
            )
        )
    listing = wanted(repo, commit, folder)
    if lacking := _lacking(root, listing):
        raise Unavailable(f"hf://{repo}@{commit}", f"the Hub did not send {lacking}", "try again later")
    for name, size in (listing or {}).items():
        _check_file(root / name, size)
    root.mkdir(parents=True, exist_ok=True)  # a commit of pickles only leaves it empty, to be refused later
    return root


def wanted(repo: str, commit: str, folder: str) -> dict[str, int] | None:
    """Return name → size of what is wanted directly in `folder`; None when the Hub never listed this commit.

    Weights and configuration only, no pickles and no code. Names have no further slash: none leads out.
    """
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    try:
        files = get_cached_repo_tree(repo, revision=commit)
    except CachedRepoTreeNotFoundError:
        return None
    placed = [(*file.path.rpartition("/"), file) for file in files]
    return {
        file.path: file.size
        for parent, _, name, file in placed
        if fnmatchcase(parent, folder) and "/" not in parent and is_readable(name)
    }


def first_few(names: Iterable[str]) -> str:
    """Return the first five of some names, and the number of the others."""
    named = list(names)
    more = f" and {len(named) - 5} more" if len(named) > 5 else ""
    return ", ".join(named[:5]) + more or "none"


def _lacking(root: Path, listing: dict[str, int] | None) -> str:
    if listing is None:
        return "the list of its files"
    missing = [name for name in listing if not (root / name).exists()]
    return first_few(missing) if missing else ""


def _check_file(path: Path, size: int) -> None:
    """Raise BadInput for a file outside the cache, or whose content does not match its blob's name."""
    from huggingface_hub import constants

    if not path.resolve().is_relative_to(Path(constants.HF_HUB_CACHE).resolve()) or not path.is_file():
        raise BadInput(path, "leads out of the Hub's cache", "remove it and do not use that Hub")
    digest = path.readlink().name if path.is_symlink() else ""
    whole = path.stat().st_size == size
    if whole and len(digest) == 64:
        whole = sha256_of(path) == digest
    if whole and len(digest) == 40:  # a small file that lies in git itself
        whole = hashlib.sha1(b"blob %d\0" % size + path.read_bytes()).hexdigest() == digest
    if not whole:
        raise BadInput(path, "is damaged", f"remove {path.resolve()} and run again to download it anew")
