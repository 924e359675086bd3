"""The git commit and the DVC hash of a merge's directory, for the registry."""

import logging
import subprocess
from pathlib import Path

COMMIT_TAG = "loreline.git_commit"

log = logging.getLogger(__name__)


def lineage(directory: Path) -> dict[str, str]:
    """Return the git commit and the DVC hash of a directory as tags, as far as there are repositories."""
    known = {COMMIT_TAG: git_commit(directory), "loreline.dvc": dvc_hash(directory)}
    return {key: value for key, value in known.items() if value}


def git_commit(directory: Path) -> str | None:
    """Return the commit that is checked out around a directory; None outside git or before a first commit."""
    command = ["git", "-C", str(directory), "rev-parse", "--verify", "--quiet", "HEAD"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return result.stdout.strip() or None


def dvc_hash(directory: Path) -> str | None:
    """Return the md5 that DVC records for a directory (….dir); None outside a DVC repository.

    The repository's own state and ignore rules are used, so `dvc commit` finds the work done.
    """
    from dvc.exceptions import DvcException, NotDvcRepoError
    from dvc.fs import localfs
    from dvc.repo import Repo
    from dvc_data.hashfile.build import build

    try:
        with Repo(str(directory)) as repo:
            path = str(directory.absolute())
            _, _, built = build(repo.cache.local, path, localfs, "md5", ignore=repo.dvcignore, dry_run=True)
            return str(built.hash_info.value)
    except NotDvcRepoError:
        return None
    except DvcException as error:
        log.warning("%s: registered without its DVC hash (%s)", directory, error)
        return None
