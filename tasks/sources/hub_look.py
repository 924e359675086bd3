"""What a Hub repository holds now, asked without downloading a checkpoint."""

import re
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tasks.base.errors import BadInput
from tasks.checkpoints.layout import STATE
from tasks.sources.hub_download import (
    ask,
    commit_of,
    endpoint,
    is_pattern,
    offline,
    parts_of,
    patiently,
    pinned,
)
from tasks.sources.hub_errors import plain_errors


class HubLook(NamedTuple):
    """The checkpoints of a repository that would be downloaded now."""

    heads: tuple[tuple[str, str], ...]
    """Branches or tags, oldest checkpoint first, and the commits they point at."""
    modified: float | None
    """When the newest one's commit was made, in seconds since 1970; None where that is not told."""
    state: Path | None
    """The trainer_state.json of the newest checkpoint, if it has one."""


def look_at_hub(source: str) -> HubLook:
    """Return what hub.download_run would take; nothing is downloaded but the newest trainer_state.json.

    Offline, that is what the cache last heard of. Raises BadInput when there is no such thing to read,
    Unavailable when the Hub does not answer.
    """
    repo, revision = parts_of(source)
    with plain_errors(f"hf://{repo}@{revision}"):
        many = is_pattern(revision)
        refs = [(name, commit) for _, name, commit in pinned(repo, revision)] if many else []
        heads = refs or [(revision, commit_of(repo, revision))]
        newest = heads[-1][1]
        if offline():
            return HubLook(tuple(heads), None, None)
        date = ask(f"{repo}/revision/{newest}").get("lastModified")
        modified = datetime.fromisoformat(date).timestamp() if date else None
        folder = "" if many else _newest_folder(repo, revision, newest)
        return HubLook(tuple(heads), modified, _state(repo, newest, folder))


def _newest_folder(repo: str, revision: str, commit: str) -> str:
    names = {str(entry["path"]).partition("/")[0] for entry in ask(f"{repo}/tree/{commit}")}
    steps = [int(match[1]) for name in names if (match := re.fullmatch(r"checkpoint-([0-9]+)", name))]
    if not steps:
        raise BadInput(f"hf://{repo}@{revision}: has no checkpoint-N folder; name another branch")
    return f"checkpoint-{max(steps)}/"


def _state(repo: str, commit: str, folder: str) -> Path | None:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    download = partial(hf_hub_download, repo, folder + STATE, revision=commit, endpoint=endpoint())
    try:
        return Path(patiently(download))
    except EntryNotFoundError:
        return None
