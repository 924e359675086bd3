"""A clone of the repository, and commands in it as its user types them."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import yaml

from tasks.base.records.merge import MergeReport
from tasks.base.records.registration import Registration

ROOT = Path(__file__).parents[2]
SCRIPT = f"""#!{sys.executable}
from flows.cli import main
if __name__ == "__main__":
    main()
"""
GIT = ["git", "-c", "user.name=t", "-c", "user.email=t@example.invalid"]


class Project:
    """A clone with a state directory of its own."""

    def __init__(self, root: Path, env: Mapping[str, str] = {}) -> None:
        self.root = root
        scripts = root / "bin"
        scripts.mkdir()
        (scripts / "loreline").write_text(SCRIPT)
        (scripts / "loreline").chmod(0o755)
        self.state = root / ".loreline"
        (self.state / "prefect").mkdir(parents=True)
        self.env = {
            **os.environ,
            "PATH": f"{scripts}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(root),
            "LORELINE_HOME": str(self.state),
            "PREFECT_HOME": str(self.state / "prefect"),
            "XDG_CACHE_HOME": str(self.state / "cache"),
            "HF_HUB_OFFLINE": "1",
        }
        for elsewhere in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL"):
            self.env.pop(elsewhere, None)
        self.env |= env

    def run(self, *command: str, code: int = 0) -> str:
        """Run a command, and return what it printed on both streams."""
        result = subprocess.run(
            command, cwd=self.root, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )  # fmt: skip
        assert result.returncode == code, result.stdout
        return result.stdout

    def python(self, code: str) -> str:
        """Run some Python in the clone, and return the last line that it printed."""
        return self.run(sys.executable, "-c", code).splitlines()[-1]

    def set(self, section: str, **values: object) -> None:
        """Edit params.yaml."""
        path = self.root / "params.yaml"
        tree = yaml.safe_load(path.read_text())
        for key, value in values.items():
            *parents, leaf = key.split("__")
            branch = tree[section]
            for parent in parents:
                branch = branch[parent]
            branch[leaf] = value
        path.write_text(yaml.safe_dump(tree))

    def merge(self) -> MergeReport:
        return MergeReport.read(self.root / "artifacts" / "merged" / "merge.json")

    def registration(self) -> Registration:
        return Registration.read(self.root / "artifacts" / "registration" / "registration.json")

    def versions(self) -> int:
        """Count the model versions in the registry."""
        return int(
            self.python(
                "from tasks.parameters.params import read_params; from tasks.registry.store import connect; from pathlib import Path\n"
                "params = read_params(Path('params.yaml')).register_\n"
                "print(len(connect(params).search_model_versions(f\"name = '{params.name}'\")))"
            )
        )


def clone(root: Path, env: Mapping[str, str] = {}) -> Project:
    """Copy what git tracks or would track, tests aside, into a repository of its own with one commit."""
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split("\0")  # fmt: skip
    for name in filter(None, tracked):
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, root / name)
    for command in (["init", "--quiet", "--initial-branch", "main"], ["add", "."], ["commit", "--quiet", "-m", "Clone"]):  # fmt: skip
        subprocess.run([*GIT, *command], cwd=root, check=True)
    return Project(root, env)
