"""Running DVC, and finding Loreline's stages in dvc.yaml."""

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tasks.base.errors import BadInput, LorelineError, Unavailable, without_secrets
from tasks.parameters.reading import load_yaml
from tasks.versioning.git import environment

LOCK_TRIES, LOCK_PAUSE_S = 10, 3.0
MADE = "artifacts/"


def dvc(root: Path, *arguments: str) -> None:
    """Run DVC; wait for a busy lock, whose holder usually finishes soon.

    Raises LorelineError with DVC's message, Unavailable when the lock stays busy.
    """
    for attempt in range(LOCK_TRIES):
        if attempt:
            time.sleep(LOCK_PAUSE_S)
        result = subprocess.run(
            [sys.executable, "-m", "dvc", *arguments],
            cwd=root,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode == 0:
            return
        message = _errors(result.stderr)
        if "Unable to acquire lock" not in message and "is busy" not in message:
            raise LorelineError(
                root, f"dvc {arguments[0]} failed: {message or 'no message'}", "mend that and run it again"
            )
    raise Unavailable(root, f"dvc {arguments[0]} failed: {message}", "run the same command again later")


def stages(root: Path) -> dict[str, Mapping[str, Any]]:
    """Return the stages of dvc.yaml whose outputs are the flow's: all of them under artifacts/.

    What else a user's pipeline has is not made by the flow, so it is neither committed nor pushed.
    Raises BadInput for a file that is not YAML.
    """
    path = root / "dvc.yaml"
    try:
        found = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("stages") or {}
        return {str(name): _plain(stage) for name, stage in found.items() if _is_ours(stage)}
    except (OSError, ValueError, AttributeError, TypeError, RecursionError, yaml.YAMLError) as error:
        raise BadInput(
            path, f"not readable as a pipeline ({' '.join(str(error).split())})", "correct it"
        ) from None


def needed_files(root: Path) -> list[str]:
    """Return what the stages read that is not made by them: code, and parameters beside params.yaml."""
    ours = stages(root).values()
    deps = {_path(dep) for stage in ours for dep in stage.get("deps", ())}
    params = {_path(param) for stage in ours for param in stage.get("params", ()) if isinstance(param, dict)}
    return sorted(
        name for name in deps | params if name not in ("", "params.yaml") and not name.startswith(MADE)
    )


def lacking_keys(root: Path) -> list[str]:
    """Return the keys that stages name and params.yaml has not, because it leaves them at their defaults.

    DVC refuses to record such a stage.
    """
    named = {
        key for stage in stages(root).values() for key in stage.get("params", ()) if isinstance(key, str)
    }
    tree = load_yaml(root / "params.yaml")
    return sorted(key for key in named if not _has(tree, key.split(".")))


def _has(tree: Any, keys: Sequence[str]) -> bool:
    for key in keys:
        if not isinstance(tree, dict) or key not in tree:
            return False
        tree = tree[key]
    return True


def _errors(stderr: str) -> str:
    """Return DVC's first error, which has the cause, and its last, which has the effect."""
    before, *marked = stderr.replace("Having any troubles?", "ERROR: \0").split("ERROR: ")
    errors = [" ".join(error.split()).rstrip(".") for error in marked or [before] if error[:1] != "\0"]
    return without_secrets("; ".join(dict.fromkeys(errors[:1] + errors[-1:])))


def _is_ours(stage: Mapping[str, Any]) -> bool:
    outs = [_path(out) for out in (stage or {}).get("outs") or ()]
    return bool(outs) and all(out.startswith(MADE) for out in outs)


def _path(item: str | Mapping[str, Any]) -> str:
    """Return the path of an item of dvc.yaml, which options may follow."""
    return item if isinstance(item, str) else str(next(iter(item), ""))


def _plain(stage: Mapping[str, Any]) -> dict[str, list[str | Mapping[str, Any]]]:
    """Return what a stage reads and writes; raises TypeError where these are no lists of paths."""
    found = {key: list(stage.get(key) or ()) for key in ("deps", "params", "outs")}
    for items in found.values():
        for item in items:
            _path(item)
    return found
