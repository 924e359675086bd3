"""Sharing the cache and the remotes of the user's DVC repository with a workspace."""

from pathlib import Path
from typing import Any

from tasks.base.errors import BadInput


def settings(root: Path) -> dict[str, Any]:
    """Return DVC's configuration of a repository, all levels merged, relative paths made absolute.

    Raises BadInput for a configuration that DVC cannot read.
    """
    from dvc.config import Config, ConfigError

    try:
        return dict(Config(str(root / ".dvc")))
    except ConfigError as error:
        raise BadInput(root / ".dvc", " ".join(str(error).split()), "correct it") from None


def default_remote(root: Path) -> str | None:
    """Return the name of the DVC remote that a push goes to."""
    remote = settings(root).get("core", {}).get("remote")
    return str(remote) if remote else None


def links_outputs(root: Path) -> bool:
    """Tell whether DVC links what it commits to its cache where both are on one file system."""
    return list(settings(root).get("cache", {}).get("type") or [])[:1] == ["hardlink"]


def share_cache(root: Path, workspace: Path) -> None:
    """Make `workspace` a DVC repository with the cache, the remotes and the local settings of `root`.

    All of it goes to config.local, which only its owner can read and which is never committed: remotes have
    credentials. Outputs become links to the cache, so that a model takes disk space once.
    """
    from dvc.config import Config, merge

    known = settings(root)
    local = workspace / ".dvc" / "config.local"
    local.parent.mkdir(parents=True, exist_ok=True)
    local.unlink(missing_ok=True)
    local.touch(mode=0o600)
    (local.parent / "config").touch()
    theirs = Config(str(root / ".dvc"), validate=False)
    with Config(str(local.parent), validate=False).edit("local", validate=False) as mine:
        for level in ("repo", "local"):
            merge(mine, theirs.read(level))
        cache = known.get("cache", {}).get("dir") or root / ".dvc" / "cache"
        merge(
            mine,
            {
                "cache": {"dir": str(Path(cache).absolute()), "type": "hardlink,copy"},
                "core": {
                    "analytics": "false",
                    "autostage": "false",
                    "check_update": "false",
                    # Goes when the workspace goes; DVC's own place would keep a directory for each for ever.
                    "site_cache_dir": str(local.parent / "tmp" / "site"),
                },
            },
        )
