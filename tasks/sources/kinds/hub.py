"""Training runs on the Hugging Face Hub: hf://org/name, pinned to commits, downloaded once into its cache."""

import re
import time
from collections.abc import Iterator
from datetime import datetime
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

from tasks.base.errors import BadInput
from tasks.base.hub_address import HUB
from tasks.base.hub_client import ask, endpoint, hub_errors, offline, patiently
from tasks.base.json_digest import digest_of
from tasks.checkpoints.layout import STATE
from tasks.checkpoints.names import CHECKPOINTS_GLOB, numbered, step_at_end
from tasks.parameters.fetch import FetchParams
from tasks.parameters.registration import RegisterParams
from tasks.sources.hub_cache import commit_of, first_few, ref_names, snapshot, wanted
from tasks.sources.readiness import complete_upload
from tasks.sources.run_status import RunStatus, status_of
from tasks.sources.source import FetchedCheckpoint, FetchedRun, RunSource
from tasks.trajectory.trainer_state import read_state, says_ended, step_of_steps

REPO = HUB + r"(?!.*\.\.)(?P<repo>(?![^@]*--)[a-zA-Z0-9][\w.-]*/[a-zA-Z0-9][\w.-]*)"
HUB_ADDRESS = re.compile(REPO + r"(?:@(?P<revision>(?!/)[\w.+=#,*?!\[\]/-]+))?")
PINNED = re.compile(REPO + r"@(?P<commit>[0-9a-f]{40})(?:/(?P<folder>[\w-]+))?")


class HubSource(RunSource):
    """hf://org/name@step*: its branches and tags are the checkpoints; hf://org/name[@branch]: its folders."""

    def matches(self, address: str) -> bool:
        """Match what starts with hf://."""
        return address.startswith(HUB)

    def run_name(self, address: str) -> str:
        """Return the repository's name without its owner."""
        return address.removeprefix(HUB).partition("@")[0].rstrip("/").rpartition("/")[2]

    def observe(self, address: str, quiet_for: float, registry: RegisterParams) -> RunStatus:
        """Return the status from commits; only the newest checkpoint's trainer_state.json is downloaded.

        Offline, and where the Hub gives no date, the run counts as ended.
        """
        repo, revision = _parts_of(address)
        with hub_errors(f"{HUB}{repo}@{revision}"):
            many = _is_pattern(revision)
            refs = [(name, commit) for _, name, commit in _pinned(repo, revision)] if many else []
            heads = refs or [(revision, commit_of(repo, revision))]
            digest, newest = digest_of(heads), heads[-1][1]
            undated = RunStatus(digest, True, f"commit {newest[:10]}, whose date is not known")
            if offline():
                return undated
            date = ask(f"{repo}/revision/{newest}").get("lastModified")
            state = _state(repo, newest, "" if many else _newest_folder(repo, revision, newest))
            if not date:
                return undated
            age = time.time() - datetime.fromisoformat(date).timestamp()
        place = step_of_steps(state) if state else f"commit {newest[:10]}"
        return status_of(digest, says_ended(state), place, age, quiet_for)

    def fetch(self, params: FetchParams, registry: RegisterParams) -> FetchedRun:
        """Download every checkpoint that the cache lacks; offline, the cache must have them all."""
        repo, revision = _parts_of(params.address)
        with hub_errors(f"{HUB}{repo}@{revision}"):
            found = _revisions(repo, revision) if _is_pattern(revision) else _folders(repo, revision)
        return complete_upload(found)

    def restore(self, address: str) -> Path:
        """Return the directory of hf://org/name@commit[/checkpoint-N], downloading what the cache lacks."""
        match = PINNED.fullmatch(address)
        folder = match["folder"] or "" if match else ""
        if not match or (folder and not numbered([folder])):
            raise BadInput("checkpoint source", "is not pinned", "write hf://org/name@commit[/checkpoint-N]")
        with hub_errors(address):
            return snapshot(match["repo"], match["commit"], folder) / folder

    def runs_in(self, root: str, project: Path, registry: RegisterParams) -> Iterator[str]:
        """Return the repository itself; the Hub is not asked."""
        yield root


def _parts_of(address: str) -> tuple[str, str]:
    """Return repository and revision (or pattern) of hf://org/name[@…]; BadInput for anything else."""
    match = HUB_ADDRESS.fullmatch(address)
    if not match:  # not quoted: it could hold a password
        raise BadInput("fetch.source", "not a Hub address", "write hf://org/name or hf://org/name@step*")
    return match["repo"], match["revision"] or "main"


def _is_pattern(revision: str) -> bool:
    """Tell whether a revision names many."""
    return bool(set("*?[") & set(revision))


def _pinned(repo: str, pattern: str) -> list[tuple[int, str, str]]:
    """Return step, name and commit of every branch and tag that matches and ends in a number, by step."""
    names = ref_names(repo)
    steps = {name: step_at_end(name) for name in names if fnmatchcase(name, pattern)}
    found = sorted((step, name) for name, step in steps.items() if step is not None)
    if not found:
        raise BadInput(
            f"{HUB}{repo}@{pattern}",
            "no branch or tag matches that and ends in a number",
            f"there is {first_few(names)}",
        )
    return [(step, name, commit_of(repo, name)) for step, name in found]


def _revisions(repo: str, pattern: str) -> list[FetchedCheckpoint]:
    # All commits are resolved before the first download, so that branches that move meanwhile do not matter.
    return [
        FetchedCheckpoint(step, name, snapshot(repo, commit), f"{HUB}{repo}@{commit}")
        for step, name, commit in _pinned(repo, pattern)
    ]


def _folders(repo: str, revision: str) -> list[FetchedCheckpoint]:
    commit = commit_of(repo, revision)
    root = snapshot(repo, commit, CHECKPOINTS_GLOB)
    found = numbered({name.partition("/")[0] for name in wanted(repo, commit, CHECKPOINTS_GLOB) or ()})
    if not found:
        raise BadInput(
            f"{HUB}{repo}@{revision}",
            "has no checkpoint-N folder",
            f"name another branch, or its revisions by a pattern such as {HUB}{repo}@step*",
        )
    return [
        FetchedCheckpoint(step, name, root / name, f"{HUB}{repo}@{commit}/{name}") for step, name in found
    ]


def _newest_folder(repo: str, revision: str, commit: str) -> str:
    found = numbered({str(entry["path"]).partition("/")[0] for entry in ask(f"{repo}/tree/{commit}")})
    if not found:
        raise BadInput(f"{HUB}{repo}@{revision}", "has no checkpoint-N folder", "name another branch")
    return f"{found[-1][1]}/"


def _state(repo: str, commit: str, folder: str) -> dict[str, Any]:
    """Return the trainer_state.json of a folder; empty where it has none that can be read."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    download = partial(hf_hub_download, repo, folder + STATE, revision=commit, endpoint=endpoint())
    try:
        return read_state(Path(patiently(download)).parent) or {}
    except EntryNotFoundError:
        return {}
