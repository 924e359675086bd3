"""Checkpoints on the Hugging Face Hub: pinned to a commit, downloaded once into its cache, checked there."""

import hashlib
import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

from tasks.base.digests import sha256_of
from tasks.base.errors import BadInput, Unavailable
from tasks.sources.hub_errors import plain_errors

KINDS = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")
FOLDERS = "checkpoint-[0-9]*"
REPO = r"hf://(?!.*\.\.)(?P<repo>(?![^@]*--)[a-zA-Z0-9][\w.-]*/[a-zA-Z0-9][\w.-]*)"
HUB_ADDRESS = re.compile(REPO + r"(?:@(?P<revision>(?!/)[\w.+=#,*?!\[\]/-]+))?")
PINNED = re.compile(REPO + r"@(?P<commit>[0-9a-f]{40})(?:/(?P<folder>checkpoint-[0-9]+))?")
COMMIT_HASH = re.compile(r"[0-9a-f]{40}")
REF = re.compile(r"(?!.*\.\.)[\w.+=#,-]+(?:/[\w.+=#,-]+)*")
RETRIES, FIRST_WAIT = 5, 1.0


class RemoteCheckpoint(NamedTuple):
    """A checkpoint of a Hub repository or an MLflow run, on this machine."""

    step: int
    name: str
    """checkpoint-N, or the branch or tag."""
    directory: Path
    """Where it lies in a cache."""
    source: str
    """hf://org/name@commit[/checkpoint-N], say: enough to get the same bytes again."""


def download_run(source: str) -> list[RemoteCheckpoint]:
    """Download every checkpoint of hf://org/name@step* (revisions) or hf://org/name[@branch] (folders).

    Raises BadInput when there is no such thing to read, Unavailable when the Hub does not answer.
    """
    repo, revision = parts_of(source)
    with plain_errors(f"hf://{repo}@{revision}"):
        return _revisions(repo, revision) if is_pattern(revision) else _folders(repo, revision)


def download_checkpoint(source: str) -> Path:
    """Return the directory of hf://org/name@commit[/checkpoint-N], downloading what the cache lacks.

    Raises BadInput when there is no such thing to read, Unavailable when the Hub does not answer.
    """
    match = PINNED.fullmatch(source)
    if not match:
        raise BadInput("checkpoint source: is not pinned; write hf://org/name@commit[/checkpoint-N]")
    folder = match["folder"] or ""
    with plain_errors(source):
        return _snapshot(match["repo"], match["commit"], folder) / folder


def parts_of(source: str) -> tuple[str, str]:
    """Return repository and revision (or pattern) of hf://org/name[@…]; BadInput for anything else."""
    match = HUB_ADDRESS.fullmatch(source)
    if not match:  # not quoted: it could hold a password
        raise BadInput("fetch.source: not a Hub address; write hf://org/name or hf://org/name@step*")
    return match["repo"], match["revision"] or "main"


def is_pattern(revision: str) -> bool:
    """Tell whether a revision names many."""
    return bool(set("*?[") & set(revision))


def pinned(repo: str, pattern: str) -> list[tuple[int, str, str]]:
    """Return step, name and commit of every branch and tag that matches, by step."""
    names = _ref_names(repo)
    steps = {name: re.search(r"[0-9]+$", name) for name in names if fnmatchcase(name, pattern)}
    numbered = sorted((int(match[0]), name) for name, match in steps.items() if match)
    if not numbered:
        raise BadInput(
            f"hf://{repo}@{pattern}: no branch or tag matches that and ends in a number; "
            f"there is {_some(names)}"
        )
    return [(step, name, commit_of(repo, name)) for step, name in numbered]


def _revisions(repo: str, pattern: str) -> list[RemoteCheckpoint]:
    # All are pinned before the first download: what moves meanwhile changes nothing.
    return [
        RemoteCheckpoint(step, name, _snapshot(repo, commit), f"hf://{repo}@{commit}")
        for step, name, commit in pinned(repo, pattern)
    ]


def _folders(repo: str, revision: str) -> list[RemoteCheckpoint]:
    commit = commit_of(repo, revision)
    snapshot = _snapshot(repo, commit, FOLDERS)
    names = {name.partition("/")[0] for name in _listing(repo, commit, FOLDERS) or ()}
    numbers = {name: name.removeprefix("checkpoint-") for name in names}
    numbered = sorted((int(number), name) for name, number in numbers.items() if number.isdecimal())
    if not numbered:
        raise BadInput(
            f"hf://{repo}@{revision}: has no checkpoint-N folder; name another branch, "
            f"or its revisions by a pattern such as hf://{repo}@step*"
        )
    return [
        RemoteCheckpoint(step, name, snapshot / name, f"hf://{repo}@{commit}/{name}")
        for step, name in numbered
    ]


def _ref_names(repo: str) -> list[str]:
    if offline():
        refs = _cache(repo) / "refs"
        return sorted(path.relative_to(refs).as_posix() for path in refs.rglob("*") if path.is_file())
    listed = ask(f"{repo}/refs")
    names = {str(ref["name"]) for kind in ("branches", "tags") for ref in listed[kind]}
    return sorted(name for name in names if REF.fullmatch(name))


def commit_of(repo: str, revision: str) -> str:
    """Return the commit that a revision points at now; offline, when the cache last heard of it."""
    if COMMIT_HASH.fullmatch(revision):
        return revision
    note = _cache(repo) / "refs" / revision
    if offline() and not note.is_file():
        raise Unavailable(f"hf://{repo}@{revision}: is not in the cache; unset HF_HUB_OFFLINE to look it up")
    if offline():
        return note.read_text().strip()
    commit = str(ask(f"{repo}/revision/{quote(revision, safe='')}")["sha"])
    if not COMMIT_HASH.fullmatch(commit):
        raise ValueError("not a commit")
    with suppress(OSError):  # noted for a look without a network; a read-only cache is fine
        note.parent.mkdir(parents=True, exist_ok=True)
        partial = note.with_name(f"{note.name}.{os.getpid()}.tmp")
        partial.write_text(commit)
        partial.replace(note)
    return commit


def _snapshot(repo: str, commit: str, folder: str = "") -> Path:
    """Return the local root of a commit once all that is wanted directly in `folder` is there, unharmed."""
    from huggingface_hub import snapshot_download

    root = _cache(repo) / "snapshots" / commit
    if (lacking := _lacking(root, _listing(repo, commit, folder))) and offline():
        raise Unavailable(
            f"hf://{repo}@{commit}: the cache lacks {lacking}; unset HF_HUB_OFFLINE to download it"
        )
    if lacking:
        prefix = f"{folder}/" if folder else ""
        patiently(
            lambda: snapshot_download(
                repo,
                revision=commit,
                allow_patterns=[prefix + kind for kind in KINDS],
                ignore_patterns=[f"{prefix}*/*"],
                endpoint=endpoint(),
            )
        )
    listing = _listing(repo, commit, folder)
    if lacking := _lacking(root, listing):
        raise Unavailable(f"hf://{repo}@{commit}: the Hub did not send {lacking}; try again later")
    for name, size in (listing or {}).items():
        _check_file(root / name, size)
    root.mkdir(parents=True, exist_ok=True)  # a commit of pickles only leaves it empty, to be refused later
    return root


def _listing(repo: str, commit: str, folder: str) -> dict[str, int] | None:
    """Return name → size of what is wanted directly in `folder`; None when the Hub never listed this commit.

    Weights and configuration only: no pickle and no code; and as no name has a further slash, no way out.
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
        if fnmatchcase(parent, folder)
        and "/" not in parent
        and any(fnmatchcase(name, kind) for kind in KINDS)
    }


def _lacking(root: Path, listing: dict[str, int] | None) -> str:
    if listing is None:
        return "the list of its files"
    missing = [name for name in listing if not (root / name).exists()]
    return _some(missing) if missing else ""


def _check_file(path: Path, size: int) -> None:
    """Refuse a cached file that lies elsewhere or is not the content that its blob is named after."""
    from huggingface_hub import constants

    if not path.resolve().is_relative_to(Path(constants.HF_HUB_CACHE).resolve()) or not path.is_file():
        raise BadInput(f"{path}: leads out of the Hub's cache; remove it and do not use that Hub")
    digest = path.readlink().name if path.is_symlink() else ""
    whole = path.stat().st_size == size
    if whole and len(digest) == 64:
        whole = sha256_of(path) == digest
    if whole and len(digest) == 40:  # a small file that lies in git itself
        whole = hashlib.sha1(b"blob %d\0" % size + path.read_bytes()).hexdigest() == digest
    if not whole:
        raise BadInput(f"{path}: is damaged; remove {path.resolve()} and run again to download it anew")


def _cache(repo: str) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"


def offline() -> bool:
    """Tell whether huggingface_hub was told to use its cache alone."""
    from huggingface_hub import is_offline_mode

    return is_offline_mode()


def endpoint() -> str:
    """Return the Hub's address as it is set now; huggingface_hub itself reads it once, when imported."""
    from huggingface_hub import constants

    address = (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")
    if "@" in urlsplit(address).netloc:  # huggingface_hub logs every URL that fails
        raise BadInput("HF_ENDPOINT: holds a user name or password; leave it out and set HF_TOKEN instead")
    return address


def ask(path: str) -> Any:
    """Ask the Hub's API; the calls of HfApi for this never try again, and may wait without end."""
    from huggingface_hub import constants
    from huggingface_hub.utils import (  # type: ignore[attr-defined]
        build_hf_headers,
        hf_raise_for_status,
        http_backoff,
    )

    response = http_backoff(
        "GET",
        f"{endpoint()}/api/models/{path}",
        headers=build_hf_headers(),
        timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT,
        max_retries=RETRIES,
        base_wait_time=FIRST_WAIT,
    )
    hf_raise_for_status(response)
    return response.json()


def patiently(download: Callable[[], str]) -> str:
    """Try again after what huggingface_hub lets through; what it has waited for itself comes wrapped."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    for attempt in range(RETRIES):
        try:
            return download()
        except httpx2.TransportError:
            pass
        except HfHubHTTPError as error:
            if error.response.status_code < 500:
                raise
        time.sleep(FIRST_WAIT * 2**attempt)
    return download()


def _some(names: list[str]) -> str:
    """Name the first few of many."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more or "none"
