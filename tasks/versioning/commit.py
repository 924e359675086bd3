"""Commits and tags by git's plumbing commands, without the user's index, work tree or checked-out branch."""

import re
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from tasks.base.errors import BadInput, Unavailable
from tasks.versioning.git import GitRefused, git, git_answer, head, prefix, signature, top

TRIES, PAUSE_S = 30, 0.1
STALE_S = 60.0
"""How long a lock file of git's is respected: git holds it for milliseconds, but a killed git leaves it."""
LOCKED = ".lock': File exists"
"""Part of git's message when another git holds a reference."""
IDENTITY, MODEL = "Loreline-Identity", "Loreline-Model"


class Message(NamedTuple):
    """A commit message."""

    subject: str
    body: str
    trailers: Mapping[str, str]
    """Loreline-Identity and Loreline-Model, among others: one commit for the two of them."""

    def text(self) -> str:
        """Return the message as git keeps it."""
        trailers = "\n".join(f"{key}: {_line(value)}" for key, value in self.trailers.items())
        return f"{_line(self.subject)}\n\n{self.body.strip()}\n\n{trailers}\n"


def check_branch(directory: Path, branch: str) -> None:
    """Raise BadInput when a branch is checked out anywhere, or its name is not valid."""
    if git_answer(directory, "check-ref-format", "--branch", branch) is None:
        raise BadInput("version.branch", f"{branch} is not a name that git accepts", "choose another")
    place = ""
    for line in git(directory, "worktree", "list", "--porcelain").splitlines():
        key, _, value = line.partition(" ")
        if key == "worktree":
            place = value
        if (key, value) == ("branch", f"refs/heads/{branch}"):
            raise BadInput(
                "version.branch",
                f"{branch} is checked out in {place}, whose files would no longer match it",
                "check out another branch there, or name another here",
            )


def commit_files(directory: Path, branch: str, files: Mapping[str, Path], message: Message) -> str:
    """Commit what is checked out in `directory`, with `files` in it, to a branch; return the revision.

    Names of files are relative to `directory`. The branch is made when there is none; its tip and what is
    checked out are the parents. The same identity and model again give the commit that is there.
    Raises BadInput for a branch that is checked out, Unavailable when it cannot be moved.
    """
    base, reference = head(directory), f"refs/heads/{branch}"
    tree = _tree(directory, base, files)
    refusal: GitRefused | None = None
    for _ in range(TRIES):
        check_branch(directory, branch)
        tip = git_answer(directory, "rev-parse", "--verify", "--quiet", f"{reference}^{{commit}}")
        if known := _find(directory, tip, message):
            return known
        revision = _commit(directory, tree, _parents(directory, tip, base), message)
        try:
            move(directory, reference, revision, tip or "")
            return revision
        except GitRefused as error:  # another run moved the branch first
            refusal = error
            time.sleep(PAUSE_S)
    assert refusal is not None
    raise Unavailable(
        f"version.branch: {refusal.subject}", refusal.problem, "mend that, or run the same command again"
    )


def tag_names(run: str, version: int, revision: str, first: bool) -> list[str]:
    """Return the names that the tag of a version's commit may have, the best first.

    merge/RUN is the `first` version's of that run name. The others have the version's number, which the
    registry gives once, so that clones that know nothing of each other choose different names.
    """
    plain = plain_tag(run)
    numbered = f"{plain}-v{version}"
    return [*([plain] if first else []), numbered, f"{numbered}-{revision[:8]}"]


def plain_tag(run: str) -> str:
    """Return merge/RUN, as far as git accepts the name."""
    part = re.sub(r"\.\.+|[^\w.+=-]+", "-", run).strip(".-") or "run"
    return f"merge/{part}-" if part.endswith(".lock") else f"merge/{part}"


def tag(directory: Path, names: Iterable[str], revision: str, elsewhere: Mapping[str, str] = {}) -> str:
    """Tag a revision by the first of these names that no other has, and return it; tags never move.

    `elsewhere`: tags of a remote with their commits. A name that is another commit's there is given up here.
    Raises Unavailable when none is left, or one stays locked.
    """
    for name in names:
        if elsewhere.get(name, revision) != revision:
            if _tagged(directory, name) == revision:  # made by a call that was cut short or too late
                git(directory, "update-ref", "--no-deref", "-d", f"refs/tags/{name}", revision)
            continue
        refusal = _tag_as(directory, name, revision)
        if refusal is None:
            return name
    raise Unavailable(directory, f"no name is left for the tag of {revision[:10]}", "remove one of its tags")


def removable_tag(directory: Path, name: str, revision: str) -> bool:
    """Tell whether a tag is that of a revision, and a branch holds the commit, which then stays."""
    if _tagged(directory, name) != revision:
        return False
    return bool(git(directory, "for-each-ref", "--count=1", f"--contains={revision}", "refs/heads"))


def remove_tag(directory: Path, name: str, revision: str) -> None:
    """Remove a tag that is as `removable_tag` says; one that moved meanwhile stays."""
    if removable_tag(directory, name, revision):
        git(directory, "update-ref", "--no-deref", "-d", f"refs/tags/{name}", revision)


def changed_files(directory: Path, names: Iterable[str]) -> list[str]:
    """Return which of these files, or files below these directories, are not as committed."""
    root, within = top(directory), prefix(directory)
    paths = [path for name in names for path in [directory / name, *(directory / name).rglob("*")]]
    files = [path for path in paths if path.is_file() and "__pycache__" not in path.parts]
    present = [within + path.relative_to(directory).as_posix() for path in files]
    digests = git(root, "hash-object", "--stdin-paths", stdin="".join(f"{name}\n" for name in present))
    now = dict(zip(present, digests.splitlines(), strict=True))
    listed = git(root, "ls-tree", "-r", "-z", "HEAD", "--", *(within + name for name in names)).split("\0")
    committed = {
        path: entry.split()[2] for entry, _, path in (line.partition("\t") for line in listed) if path
    }
    differ = {name for name in now.keys() | committed.keys() if now.get(name) != committed.get(name)}
    return sorted(name.removeprefix(within) for name in differ)


def _tree(directory: Path, base: str, files: Mapping[str, Path]) -> str:
    root, within = top(directory), prefix(directory)
    with tempfile.TemporaryDirectory() as scratch:
        index = {"GIT_INDEX_FILE": str(Path(scratch) / "index")}
        git(root, "read-tree", base, env=index)
        for name, path in files.items():
            # Through the filters for that name, as git add would: a checkout applies their inverse.
            blob = git(root, "hash-object", "-w", f"--path={within}{name}", str(path.absolute()))
            git(root, "update-index", "--add", "--cacheinfo", f"100644,{blob},{within}{name}", env=index)
        return git(root, "write-tree", env=index)


def _find(directory: Path, tip: str | None, message: Message) -> str | None:
    """Return the commit of this identity and model: on the branch, or tagged if the branch was removed."""
    wanted = [_line(message.trailers[key]) for key in (IDENTITY, MODEL)]
    values = "%x00".join(f"%(trailers:key={key},valueonly,separator=%x2C)" for key in (IDENTITY, MODEL))
    matching = (
        "--fixed-strings",
        f"--grep={IDENTITY}: {wanted[0]}",
        f"--format=%H%x00{values}",
        "--no-show-signature",
    )
    starts = [tip, "--tags=merge/*"] if tip else ["--tags=merge/*"]
    for line in git(directory, "log", *matching, *starts, "--").splitlines():
        revision, *found = line.split("\0")
        if found == wanted:
            return revision
    return None


def _parents(directory: Path, tip: str | None, base: str) -> list[str]:
    if tip is None:
        return [base]
    known = git_answer(directory, "merge-base", "--is-ancestor", base, tip) is not None
    return [tip] if known else [tip, base]


def _commit(directory: Path, tree: str, parents: Iterable[str], message: Message) -> str:
    options = [option for parent in parents for option in ("-p", parent)]
    return git(directory, "commit-tree", tree, *options, env=signature(directory), stdin=message.text())


def _tag_as(directory: Path, name: str, revision: str) -> GitRefused | None:
    """Make a tag, or find it made; return why when the name is another's.

    A lock on it is waited for: whoever was killed holding it did not get the name.
    Raises Unavailable when it stays locked.
    """
    reference = f"refs/tags/{name}"
    for _ in range(TRIES):
        try:
            move(directory, reference, revision, "")
            return None
        except GitRefused as error:
            refusal = error
        if _tagged(directory, name) == revision:
            return None
        if LOCKED not in refusal.problem:
            return refusal
        time.sleep(PAUSE_S)
    raise Unavailable(refusal.subject, refusal.problem, "run the same command again")


def _tagged(directory: Path, name: str) -> str | None:
    """Return the commit of a tag."""
    return git_answer(directory, "rev-parse", "--verify", "--quiet", f"refs/tags/{name}^{{commit}}")


def move(directory: Path, reference: str, revision: str, expected: str) -> None:
    """Move a reference by compare-and-set; raises GitRefused when it is not as expected.

    An empty `expected` means that there must be no such reference yet.
    """
    _break_stale_lock(Path(git(directory, "rev-parse", "--git-path", f"{reference}.lock")), directory)
    command = ("update-ref", "--no-deref", "-m", "loreline version", reference, revision, expected)
    git(directory, *command, env=signature(directory))


def _break_stale_lock(lock: Path, directory: Path) -> None:
    with suppress(FileNotFoundError):
        if time.time() - (directory / lock).stat().st_mtime > STALE_S:
            (directory / lock).unlink()


def _line(text: str) -> str:
    return " ".join(text.split())
