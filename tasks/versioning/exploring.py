"""Telling `dvc repro` on the main branch, which publishes, from experiments and other branches."""

import os
from pathlib import Path

from tasks.versioning.git import git_answer, unusable

EXPERIMENTS = ("DVC_EXP_NAME", "DVC_EXP_BASELINE_REV")
"""Set by `dvc exp run` for its stages."""
STAGE = "DVC_STAGE"
"""Set by DVC for every stage."""
MAIN = ("main", "master")
"""The main branch's usual names, where no remote says which it is."""


def why_exploring(root: Path) -> str | None:
    """Return why this process is to publish nothing; None for what a person or the main branch asks for."""
    if any(os.environ.get(name) for name in EXPERIMENTS):
        return "it is an experiment of DVC"
    if STAGE not in os.environ or unusable(root):
        return None
    remote = git_answer(root, "symbolic-ref", "--quiet", "--short", "refs/remotes/origin/HEAD")
    names = (remote.removeprefix("origin/"),) if remote else MAIN
    branch = git_answer(root, "symbolic-ref", "--quiet", "--short", "HEAD")
    if branch in names:
        return None
    at = f"the branch {branch}" if branch else "a commit that no branch is checked out for"
    return f"it is dvc repro on {at}, not on {' or '.join(names)}"
