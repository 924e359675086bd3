"""Running git: without hooks, prompts or optional locks, and with errors as ours."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tasks.base.errors import LorelineError, without_secrets

FALLBACK = {"NAME": "Loreline", "EMAIL": "loreline@localhost"}
# Set by a git that runs this program (rebase --exec, an alias): they would name another repository.
INHERITED = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_COMMON_DIR",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_NAMESPACE",
)


class Unusable(NamedTuple):
    """Why a directory cannot be committed to."""

    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.problem}; {self.remedy}"


class GitRefused(LorelineError):
    """Git ran and failed; the error has its message."""


def git(
    directory: Path, *arguments: str, env: Mapping[str, str] | None = None, stdin: str | None = None
) -> str:
    """Run git in a directory and return what it prints, without the last line's end.

    Raises GitRefused with git's message.
    """
    result = subprocess.run(
        ["git", "-c", f"core.hooksPath={os.devnull}", *arguments],
        cwd=directory,
        env={**environment(), **(env or {})},
        input=stdin,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="surrogateescape",
        check=False,
    )
    if result.returncode:
        message = without_secrets(" ".join(result.stderr.split())) or f"exit code {result.returncode}"
        raise GitRefused(directory, f"git {arguments[0]} says: {message}", "mend that and run it again")
    return result.stdout.rstrip("\n")


def git_answer(directory: Path, *arguments: str) -> str | None:
    """Run git and return what it prints; None when it fails."""
    try:
        return git(directory, *arguments)
    except GitRefused:
        return None


def environment() -> dict[str, str]:
    """Return the environment for git, and for DVC, which runs git: English, no prompts, no optional locks."""
    kept = {key: value for key, value in os.environ.items() if key not in INHERITED}
    return kept | {"LC_ALL": "C.UTF-8", "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0"}


def unusable(directory: Path) -> Unusable | None:
    """Return why a directory cannot be committed to, and the remedy; None for a usable repository."""
    try:
        if git(directory, "rev-parse", "--is-inside-work-tree") != "true":
            return Unusable("not in a git work tree", "run it in a checkout")
    except FileNotFoundError:
        return Unusable("git is not installed", "install it")
    except GitRefused as error:
        if "not a git repository" in error.problem:
            return Unusable("not a git repository", "run git init and commit")
        return Unusable(f"{error.subject}: {error.problem}", error.remedy)
    if git_answer(directory, "rev-parse", "--verify", "--quiet", "HEAD^{commit}") is None:
        return Unusable("the git repository has no commit yet", "make one")
    return None


def head(directory: Path) -> str:
    """Return the commit that is checked out in a directory."""
    return git(directory, "rev-parse", "--verify", "HEAD^{commit}")


def prefix(directory: Path) -> str:
    """Return where a directory lies in its work tree: empty at the top, else a path that ends in a slash."""
    return git(directory, "rev-parse", "--show-prefix")


def top(directory: Path) -> Path:
    """Return the top of the work tree around a directory."""
    return Path(git(directory, "rev-parse", "--show-toplevel"))


def signature(directory: Path) -> dict[str, str]:
    """Return what git needs in its environment to commit: nothing where the user has an identity."""
    roles = ("AUTHOR", "COMMITTER")
    if all(
        git_answer(directory, "-c", "user.useConfigOnly=true", "var", f"GIT_{role}_IDENT") for role in roles
    ):
        return {}
    return {
        key: os.environ.get(key) or value
        for role in roles
        for key, value in ((f"GIT_{role}_{part}", default) for part, default in FALLBACK.items())
    }
