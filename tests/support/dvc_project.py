"""A project as its user has it: real git and DVC, a pipeline, and a model that a run made."""

import os
import subprocess
import sys
from pathlib import Path

import yaml

CODE = ["code.py", "package"]
PIPELINE = {
    "stages": {
        "train": {"cmd": "true", "outs": ["data.bin"]},  # the user's own; it was never run
        "fetch": {"cmd": "true", "deps": CODE, "params": ["fetch"], "outs": ["artifacts/run"]},
        "merge": {
            "cmd": "true",
            "deps": ["artifacts/run", *CODE],
            "params": ["merge"],
            "outs": [{"artifacts/merged": {"persist": True}}],
        },
        "evaluate": {"cmd": "true", "deps": ["artifacts/merged"], "outs": ["artifacts/evaluation"]},
        "register": {"cmd": "true", "params": ["register.name"], "outs": ["artifacts/registration"]},
    }
}
OURS = ("fetch", "merge", "evaluate", "register")
PARAMS = {
    "fetch": {"source": "runs/a"},
    "merge": {"method": "average"},
    "evaluate": {"tasks": ["t"], "primary": "t/nll"},
    "register": {"name": "demo"},
}
USER = {
    f"GIT_{role}_{part}": f"{part.lower()}@x"
    for role in ("AUTHOR", "COMMITTER")
    for part in ("NAME", "EMAIL")
}


class Plain(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        return True


def run(directory: Path, *command: str, **env: str) -> str:
    result = subprocess.run(
        command, cwd=directory, env={**os.environ, **USER, **env}, capture_output=True, text=True
    )
    assert result.returncode == 0, f"{command}: {result.stderr}"
    return result.stdout


def git(directory: Path, *arguments: str) -> str:
    return run(directory, "git", *arguments).rstrip("\n")


def dvc(directory: Path, *arguments: str) -> str:
    return run(directory, sys.executable, "-m", "dvc", *arguments)


def write_project(root: Path) -> Path:
    """Write what a project has beside .git and .dvc."""
    (root / "package").mkdir(parents=True)
    (root / "dvc.yaml").write_text(yaml.dump(PIPELINE, Dumper=Plain))
    (root / "params.yaml").write_text("# mine\n" + yaml.safe_dump(PARAMS))
    (root / "code.py").write_text("code\n")
    (root / "package" / "part.py").write_text("part\n")
    (root / "mine.txt").write_text("mine\n")
    (root / ".gitignore").write_text("/artifacts/\n/.loreline/\n")
    return root


def init_git(root: Path) -> Path:
    git(root, "init", "--quiet", "--initial-branch", "main")
    return root


def commit_all(root: Path) -> Path:
    git(root, "add", ".")
    git(root, "commit", "--quiet", "-m", "Start")
    return root


def make_project(root: Path) -> Path:
    """Make a committed project with git and DVC."""
    init_git(write_project(root))
    dvc(root, "init", "--quiet")
    return commit_all(root)


def make_dirty(root: Path) -> None:
    """Leave work of every kind undone in the checkout."""
    (root / "mine.txt").write_text("put aside\n")
    git(root, "stash", "--quiet")
    (root / "staged.txt").write_text("staged\n")
    git(root, "add", "staged.txt")
    (root / "staged.txt").write_text("staged, then edited\n")
    (root / "untracked.txt").write_text("untracked\n")
    (root / ".gitignore").write_text("/artifacts/\n/.loreline/\n# edited\n")
    (root / "params.yaml").write_text("# half an ed")
    git(root, "rm", "--quiet", "--cached", "package/part.py")


def state(root: Path) -> dict[str, object]:
    """Return everything of the checkout that is the user's."""
    ask = ("git", "--no-optional-locks")
    private = ("artifacts", ".loreline", ".git")
    files = {
        str(path.relative_to(root)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.relative_to(root).parts[0] not in private and ".dvc" not in path.parts[:-2]
    }
    return {
        "status": run(root, *ask, "status", "--porcelain=v2", "--branch"),
        "index": (root / ".git" / "index").read_bytes(),
        "HEAD": (root / ".git" / "HEAD").read_text(),
        "stashes": git(root, "stash", "list"),
        "config": (root / ".git" / "config").read_text(),
        "worktrees": git(root, "worktree", "list"),
        "branch": git(root, "rev-parse", "main"),
        "files": files,
    }
