"""Two machines of a team: a HOME, a clone and a host name each, one git remote, one DVC remote, the same servers."""

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import yaml

from tests.support.dvc_project import USER, dvc, git
from tests.support.ended_runs import back
from tests.support.project import GIT, clone
from tests.support.servers import Servers
from tests.support.tiny_world import write_model, write_world

AS_HOST = ["unshare", "--uts", "sh", "-c", 'hostname "$0"; exec "$@"']
WARM = Path(__file__).with_name("warm_host.py")
LEASE_S = 4.0
PERMITTED = subprocess.run(["unshare", "--uts", "true"], capture_output=True, check=False).returncode == 0


class Host:
    """A machine with a clone of the team's repository."""

    def __init__(self, root: Path, name: str, origin: Path, servers: Servers) -> None:
        self.name, self.clone, self.log = name, root / "clone", root / "log"
        (home := root / "home").mkdir(parents=True)
        git(root, "clone", "--quiet", str(origin), str(self.clone))
        self.state = self.clone / ".loreline"
        self.env = servers.prefect.env | {
            "MLFLOW_TRACKING_URI": servers.mlflow.uri,
            "HOME": str(home),
            "PREFECT_HOME": str(home / "prefect"),
            "XDG_CACHE_HOME": str(home / "cache"),
            "PYTHONPATH": f"{Path(__file__).parents[2]}",
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
        }
        self.env.pop("LORELINE_HOME", None)
        self._warm: subprocess.Popen[str] | None = None
        self._pid = 0

    def start(self, *words: str) -> "subprocess.Popen[bytes]":
        """Start a command as a user of this machine types it, imports and all."""
        code = "from flows.cli import main; main()"
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*AS_HOST, self.name, sys.executable, "-c", code, *words], cwd=self.clone, env=self.env,
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def begin(self, *words: str) -> None:
        """Begin a command in a process that has imported everything already."""
        if self._warm is None:
            with self.log.open("ab") as log:
                self._warm = subprocess.Popen(
                    [*AS_HOST, self.name, sys.executable, str(WARM), str(LEASE_S)], cwd=self.clone, env=self.env,
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True,
                )  # fmt: skip
            assert self._line() == "ready", self.log.read_text()[-2000:]
        assert self._warm.stdin
        print(json.dumps(["loreline", *words]), file=self._warm.stdin, flush=True)
        self._pid = int(self._line())

    def end(self) -> int:
        """Wait for the command that was begun, and return its exit status."""
        return int(self._line())

    def kill(self) -> None:
        """Kill the command that was begun, and what it started."""
        with suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)
        self.end()

    def stop(self) -> None:
        if self._warm:
            kill_family(self._warm)

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def tags(self) -> dict[str, str]:
        return tags_of(self.clone)

    def _line(self) -> str:
        assert self._warm
        assert self._warm.stdout
        return self._warm.stdout.readline().strip()


class Hosts:
    """The team: what its machines share, and the machines."""

    def __init__(
        self, root: Path, servers: Servers, projects: dict[str, dict[str, Any]], **given: Any
    ) -> None:
        """Make the repository with one parameter file for each project, and two machines."""
        self.runs, self.origin, self.dvc_remote = root / "runs", root / "origin.git", root / "dvc-remote"
        self.servers, self.projects = servers, projects
        os.environ.update(USER)
        (seed := root / "seed").mkdir(parents=True)
        clone(seed)
        shutil.rmtree(seed / "bin")
        shutil.rmtree(seed / ".loreline")
        write_world(seed / "sums")
        for name in projects:
            params = {
                "fetch": {"source": "runs/none", "settle": 0},
                "select": {"k": 2},
                "merge": {"method": "average"},
                "evaluate": {"tasks": ["likely"], "include_path": "sums/tasks", "primary": "likely/acc", "beat_average": False},
                "register": {"name": name},
                "version": {"push": True, "git_remote": "origin"},
                "watch": {"roots": [str(self.runs / name / "*")], "quiet_for": 3600},
            }  # fmt: skip
            (seed / f"{name}.yaml").write_text(yaml.safe_dump(params | projects[name]))
        shutil.copyfile(seed / f"{next(iter(projects))}.yaml", seed / "params.yaml")
        dvc(seed, "remote", "add", "--default", "there", str(self.dvc_remote))
        subprocess.run([*GIT, "add", "--force", "."], cwd=seed, check=True)
        subprocess.run([*GIT, "commit", "--quiet", "-m", "A team's project"], cwd=seed, check=True)
        git(root, "clone", "--quiet", "--bare", str(seed), str(self.origin))
        self.one, self.two = (Host(root / name, name, self.origin, servers) for name in ("gpu1", "gpu2"))

    def train(self, project: str, name: str, seed: int) -> Path:
        """Write a training run that has ended, on the disk that the machines share."""
        run = self.runs / project / name
        for step in (1, 2):
            directory = write_model(run / f"checkpoint-{step}", seed=10 * seed + step)
            state = {
                "global_step": step,
                "max_steps": 2,
                "log_history": [{"step": step, "eval_loss": 3 - step}],
            }
            (directory / "trainer_state.json").write_text(json.dumps(state))
        return back(run)

    def look(self, project: str) -> tuple[int, int]:
        """Let both machines look at the same moment, and return their exit statuses."""
        for host in (self.one, self.two):
            host.begin("watch", "--params", f"{project}.yaml")
        return self.one.end(), self.two.end()

    def versions(self, project: str) -> list[Any]:
        """List a project's versions, the oldest first."""
        found = self.client().search_model_versions(f"name = '{project}'")
        return sorted(found, key=lambda version: int(version.version))

    def claims(self) -> list[str]:
        """List the claims that stand."""
        return [model.name for model in self.client().search_registered_models("name LIKE 'loreline-claim%'")]

    def pushed(self) -> dict[str, str]:
        return tags_of(self.origin)

    def flow_runs(self) -> list[dict[str, Any]]:
        """List the flow runs of merges that came to an end."""
        found: list[dict[str, Any]] = []
        while page := self.servers.prefect.post(
            "flow_runs/filter", flows={"name": {"any_": ["merge"]}}, offset=len(found), limit=100
        ):
            found += page
        return [run for run in found if run["end_time"]]

    def stop(self) -> None:
        for host in (self.one, self.two):
            host.stop()

    def client(self) -> Any:
        from mlflow import MlflowClient

        return MlflowClient(self.servers.mlflow.uri, registry_uri=self.servers.mlflow.uri)


def tags_of(root: Path) -> dict[str, str]:
    """Return the tags of a repository with their commits."""
    lines = git(root, "for-each-ref", "--format=%(refname:short) %(objectname)", "refs/tags").splitlines()
    return dict(line.split() for line in lines)


def kill_family(process: "subprocess.Popen[Any]") -> None:
    """Kill a process and all that it started."""
    with suppress(psutil.NoSuchProcess):
        for child in [*psutil.Process(process.pid).children(recursive=True), process]:
            with suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)
    process.wait()
