"""Stage version: tell DVC what the flow produced, so that `dvc repro` has nothing left to do."""

import subprocess
import sys
import time
from pathlib import Path

from tasks.errors import BadInput, LorelineError, Unavailable
from tasks.params import Params, read_params

LOCK_TRIES, LOCK_PAUSE_S = 10, 3.0


def version_artifacts(params: Params, artifacts: Path) -> str:
    """Record the outputs in dvc.lock and the DVC cache; return what was done, in a sentence.

    dvc.lock says that params.yaml made these outputs, so a run with other parameters is not recorded.
    Commits dvc.lock to git and pushes to the DVC remote when asked to; everything stays when that fails.
    """
    root = artifacts.absolute().parent
    if not (root / "dvc.yaml").is_file() or read_params(root / "params.yaml") != params:
        return "not versioned: the parameters of this run are not those of params.yaml"
    if not (root / ".dvc").is_dir():
        return "not versioned: not a DVC repository; run dvc init"
    _dvc(root, "commit", "--force")  # --quiet would silence its errors too
    done = ["recorded in dvc.lock"]
    if params.version.git_commit and _commit_lock(root):
        done.append("committed to git")
    if params.version.push:
        done.append(_push(root))
    return ", ".join(done)


def _dvc(root: Path, *arguments: str) -> None:
    """Run DVC; a busy lock is waited for, because its holder is about to finish."""
    for attempt in range(LOCK_TRIES):
        result = subprocess.run(
            [sys.executable, "-m", "dvc", *arguments], cwd=root, capture_output=True, text=True, check=False
        )
        if result.returncode == 0:
            return
        message = " ".join(result.stderr.rpartition("ERROR: ")[2].split())
        busy = "Unable to acquire lock" in message or "is busy" in message
        if not busy or attempt == LOCK_TRIES - 1:
            raise LorelineError(f"dvc {' '.join(arguments)} failed: {message or 'no message'}")
        time.sleep(LOCK_PAUSE_S)


def _push(root: Path) -> str:
    try:
        _dvc(root, "push")
    except LorelineError as error:
        raise Unavailable(f"{error}; everything is kept, run dvc push when the remote answers") from None
    return "pushed to the DVC remote"


def _commit_lock(root: Path) -> bool:
    """Commit dvc.lock alone, whatever else is staged; False when it is as committed."""
    if not _git(root, "status", "--porcelain", "--", "dvc.lock"):
        return False
    _git(root, "add", "--", "dvc.lock")
    _git(root, "commit", "--quiet", "--message", "Record a merged run", "--only", "--", "dvc.lock")
    return True


def _git(root: Path, *arguments: str) -> str:
    result = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    if result.returncode:
        message = " ".join(result.stderr.split())
        raise BadInput(
            f"version.git_commit: git {arguments[0]} failed ({message}); mend it or set it to false"
        )
    return result.stdout
