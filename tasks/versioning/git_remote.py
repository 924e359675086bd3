"""The branch of merges and its tags on a git remote, where clones meet: each goes on from the others."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tasks.base.errors import BadInput, Unavailable
from tasks.versioning.commit import PAUSE_S, TRIES, check_branch, move, tag
from tasks.versioning.git import GitRefused, git, git_answer, signature

TAGS = "refs/tags/"


class RemoteRefs(NamedTuple):
    """What a remote has."""

    tip: str | None
    """The branch's commit."""
    tags: Mapping[str, str]
    """Tags of merges with their commits."""


def check_git_remote(directory: Path, remote: str) -> None:
    """Raise BadInput when git knows no such remote here."""
    if remote not in git(directory, "remote").splitlines():
        raise BadInput(
            "version.git_remote",
            f"there is no git remote {remote}",
            f"run git remote add {remote} URL, or set it to null",
        )


def catch_up(directory: Path, branch: str, remote: str) -> RemoteRefs:
    """Bring what a remote has of a branch: forward it, or join the two where each has commits of its own.

    Commits never change: what somebody tagged or was told stays. Raises BadInput for a branch that is checked
    out, Unavailable when the remote does not answer.
    """
    there = _refs(directory, branch, remote)
    if there.tip is None:
        return there
    _ask(directory, "fetch", "--quiet", "--no-tags", remote, f"refs/heads/{branch}")
    reference = f"refs/heads/{branch}"
    for _ in range(TRIES):
        check_branch(directory, branch)
        ours = git_answer(directory, "rev-parse", "--verify", "--quiet", f"{reference}^{{commit}}")
        if ours and _is_within(directory, there.tip, ours):
            return there
        forward = ours is None or _is_within(directory, ours, there.tip)
        joined = there.tip if forward or ours is None else _join(directory, ours, there.tip, remote)
        try:
            move(directory, reference, joined, ours or "")
            return there
        except GitRefused as error:  # another run moved the branch first
            refusal = error
            time.sleep(PAUSE_S)
    raise Unavailable(refusal.subject, refusal.problem, "run the same command again")


def share(directory: Path, branch: str, remote: str, revision: str, names: Sequence[str]) -> str:
    """Tag a revision by the first of `names` that is free here and there, push it with the branch; return it.

    A tag that somebody else pushed first is theirs. Raises Unavailable when the remote does not take it.
    """
    for _ in range(TRIES):
        there = catch_up(directory, branch, remote)
        name = tag(directory, names, revision, there.tags)
        try:
            pushed = (f"refs/heads/{branch}", f"{TAGS}{name}")
            git(directory, "push", "--quiet", "--atomic", remote, *(f"{each}:{each}" for each in pushed))
            return name
        except GitRefused as error:
            refusal = error
        if _refs(directory, branch, remote) == there:  # nobody was faster
            raise _unavailable(refusal)
    raise _unavailable(refusal)


def remove_remote_tag(directory: Path, remote: str, name: str, revision: str) -> None:
    """Remove a tag of a revision from a remote; one that is gone, or another's, is left as it is.

    Raises Unavailable when the remote does not answer or refuses.
    """
    if _tags(_ask(directory, "ls-remote", remote, f"{TAGS}{name}")).get(name) == revision:
        lease = f"--force-with-lease={TAGS}{name}:{revision}"
        _ask(directory, "push", "--quiet", lease, remote, f":{TAGS}{name}")


def _refs(directory: Path, branch: str, remote: str) -> RemoteRefs:
    listed = _ask(directory, "ls-remote", remote, f"refs/heads/{branch}", f"{TAGS}merge/*")
    tips = [line.split("\t")[0] for line in listed.splitlines() if line.endswith(f"\trefs/heads/{branch}")]
    return RemoteRefs(tips[0] if tips else None, _tags(listed))


def _tags(listed: str) -> dict[str, str]:
    """Return the tags in git's list; what an annotated one points at comes after it."""
    pairs = (line.split("\t") for line in listed.splitlines())
    return {
        name.removeprefix(TAGS).removesuffix("^{}"): revision
        for revision, name in pairs
        if name.startswith(TAGS)
    }


def _join(directory: Path, ours: str, theirs: str, remote: str) -> str:
    return git(
        directory, "commit-tree", f"{ours}^{{tree}}", "-p", ours, "-p", theirs,
        "-m", f"Join the merges of {remote}", env=signature(directory),
    )  # fmt: skip


def _is_within(directory: Path, one: str, other: str) -> bool:
    return git_answer(directory, "merge-base", "--is-ancestor", one, other) is not None


def _ask(directory: Path, *arguments: str) -> str:
    try:
        return git(directory, *arguments)
    except GitRefused as error:
        raise _unavailable(error) from None


def _unavailable(error: GitRefused) -> Unavailable:
    return Unavailable(
        error.subject,
        f"{error.problem}; the push is pending",
        "run the same command again when the remote takes it",
    )
