"""A workspace for one run: a git worktree with only the files that decide its result."""

import shutil
from pathlib import Path

import yaml

from tasks.base.errors import LorelineError
from tasks.parameters.params import Params, read_params
from tasks.versioning.dvc import needed_files
from tasks.versioning.git import GitRefused, git, git_answer, head, prefix, unusable
from tasks.versioning.shared_cache import share_cache

ALWAYS = ("dvc.yaml", ".dvcignore", ".gitattributes", ".gitignore")


def open_workspace(place: Path, root: Path, params: Params) -> Path:
    """Make or reopen the workspace of a run at `place`; return its project directory, where artifacts/ goes.

    It is a detached worktree of the commit that is checked out in `root`, with `params` as params.yaml, and
    with dvc.yaml, the code it names and DVC's settings as they are in `root` now, committed or not: that is
    what runs. No other file is checked out. What an earlier opening left under artifacts/ stays. Without git
    or without a commit it is a plain directory. Raises LorelineError when git refuses.
    """
    place, root = place.absolute(), root.resolve()
    if unusable(root):
        place.mkdir(parents=True, exist_ok=True)
        _write_params(place, params)
        return place
    _add(place, root)
    workspace = place / prefix(root)
    workspace.mkdir(parents=True, exist_ok=True)
    _write_params(workspace, params)
    if (root / "dvc.yaml").is_file():
        for name in (*ALWAYS, *needed_files(root)):
            _copy(root, workspace, name)
    if (root / ".dvc").is_dir():
        share_cache(root, workspace)
        _committed_lock(workspace)
    return workspace


def close_workspace(place: Path, root: Path) -> None:
    """Remove a workspace, also an incomplete one, and its registration in git."""
    shutil.rmtree(place, ignore_errors=True)
    if place.exists():
        raise LorelineError(place, "cannot be removed", "remove it by hand")
    if unusable(root) or not _registered(place, root):
        return
    try:
        git(root, "worktree", "remove", "--force", "--force", str(place.absolute()))
    except GitRefused:
        if _registered(place, root):  # else another process that closed it was faster
            raise


def _add(place: Path, root: Path) -> None:
    commit = head(root)
    if _is_complete(place, root):
        if head(place) != commit:
            git(place, "update-ref", "--no-deref", "HEAD", commit)
        return
    shutil.rmtree(place, ignore_errors=True)
    # Forced twice: what a killed process left registered at this place is replaced, even if it was locked.
    options = ("--force", "--force", "--detach", "--no-checkout")
    git(root, "worktree", "add", *options, str(place), commit)


def _is_complete(place: Path, root: Path) -> bool:
    """Tell whether a complete worktree of this repository is at `place`."""
    if not (place / ".git").is_file():
        return False
    question = ("rev-parse", "--path-format=absolute", "--git-common-dir")
    ours = git_answer(place, *question) == git(root, *question)
    return ours and git_answer(place, "rev-parse", "--verify", "--quiet", "HEAD^{commit}") is not None


def _registered(place: Path, root: Path) -> bool:
    listed = git(root, "worktree", "list", "--porcelain").splitlines()
    return f"worktree {place.absolute().resolve()}" in listed


def _write_params(directory: Path, params: Params) -> None:
    """Write parameters so that reading them gives equal ones."""
    tree = yaml.safe_dump(params.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    path = directory / "params.yaml"
    path.write_text(f"# The parameters of this run, with every default.\n{tree}", encoding="utf-8")
    if read_params(path) != params:
        raise LorelineError(path, "does not read back as the parameters of this run", "report this")


def _copy(root: Path, workspace: Path, name: str) -> None:
    """Copy a file or directory from `root`, so that later edits there do not change what runs."""
    parts = Path(name).parts
    if not parts or ".." in parts or Path(name).is_absolute():  # not below the project
        return
    source, target = root / name, workspace / name
    if target.is_dir():
        shutil.rmtree(target)
    target.unlink(missing_ok=True)
    if source.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            compiled = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, target, ignore=compiled, ignore_dangling_symlinks=True)
        else:
            shutil.copyfile(source, target)


def _committed_lock(workspace: Path) -> None:
    """Start from the committed dvc.lock: results that the user did not commit do not belong to this run."""
    lock = git_answer(workspace, "show", "HEAD:./dvc.lock")
    if lock is None:
        (workspace / "dvc.lock").unlink(missing_ok=True)
    else:
        (workspace / "dvc.lock").write_text(lock + "\n", encoding="utf-8")
