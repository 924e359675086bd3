"""A project that `loreline serve` serves, with real servers behind it, as a team has it."""

import json
import os
import signal
import subprocess
import sys
import uuid
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import yaml

from tasks.registry.tags import unpacked
from tests.support.project import Project, clone
from tests.support.servers import PrefectServer, Servers, until
from tests.support.tiny_world import write_world

HERE = Path(__file__).parent
NIGHTLY = "0 3 * * *"
PARAMS = {
    "fetch": {"source": "runs/none", "settle": 0},
    "select": {"k": 3},
    "evaluate": {"tasks": ["likely"], "include_path": "sums/tasks", "primary": "likely/acc"},
    "register": {"name": "team"},
    "watch": {"roots": ["runs/*"], "quiet_for": 3600},
}


class Team:
    """A clone with the user's unfinished work in it, and the process that serves it."""

    def __init__(self, root: Path, servers: Servers) -> None:
        self.prefect: PrefectServer = servers.prefect
        self.mlflow_uri = servers.mlflow.uri
        env = {"PREFECT_API_URL": servers.prefect.api_url, "MLFLOW_TRACKING_URI": servers.mlflow.uri}
        self.project: Project = clone(root, env)
        (root / "runs").mkdir()
        write_world(root / "sums")
        (root / "params.yaml").write_text(yaml.safe_dump(PARAMS))
        self.serving: subprocess.Popen[bytes] | None = None
        self.log = root.with_name(f"{root.name}.log")

    def serve(self, cron: str = NIGHTLY) -> None:
        """Serve, and wait until the first look around is over."""
        before = len(self.flow_runs("watch"))
        with self.log.open("ab") as log:
            self.serving = subprocess.Popen(
                ["loreline", "serve", "--cron", cron], cwd=self.project.root, env=self.project.env,
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        until(
            lambda: len([run for run in self.flow_runs("watch")[before:] if run["state_type"] == "COMPLETED"])
        )

    def kill(self) -> None:
        """Kill what serves and every process that it started."""
        assert self.serving
        family = [
            self.serving.pid,
            *(p.pid for p in psutil.Process(self.serving.pid).children(recursive=True)),
        ]
        for pid in family:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.serving.wait()
        self.serving = None

    def train(self, name: str, seed: int | str = 0, script: str = "small_run.py") -> "subprocess.Popen[str]":
        """Start a small training run with the callback in it; it prints the second in which it ended."""
        command = [
            sys.executable,
            str(HERE / script),
            str(self.project.root / "runs" / name),
            str(seed),
        ]
        env = self.project.env | {"PYTHONPATH": f"{self.project.root}:{HERE.parents[1]}"}
        return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # fmt: skip

    def announce(self, name: str) -> None:
        """Send the event that the callback of release 0.1 sends, which names neither host nor project."""
        run = str(self.project.root / "runs" / name)
        event = {
            "id": str(uuid.uuid4()),
            "occurred": datetime.now(UTC).isoformat(),
            "event": "loreline.training.ended",
            "resource": {"prefect.resource.id": f"loreline.run.{run}"},
            "payload": {"run": run, "name": name},
        }
        self.prefect.ask("events", json.dumps([event]).encode())

    def flow_runs(self, flow: str) -> list[dict[str, Any]]:
        """List the runs of a flow, oldest first."""
        found: list[dict[str, Any]] = []
        while page := self.prefect.post(
            "flow_runs/filter", flows={"name": {"any_": [flow]}}, sort="START_TIME_ASC", offset=len(found), limit=100
        ):  # fmt: skip
            found += page
        return [run for run in found if run["state_type"] != "SCHEDULED"]

    def merges(self, name: str) -> list[dict[str, Any]]:
        """List the flow runs that looked after a training run."""
        return [run for run in self.flow_runs("merge") if run["name"].endswith(f" from runs/{name}")]

    def tasks(self, flow_run: str) -> dict[str, tuple[float, float]]:
        """Return when each task of a flow run began and ended, by the first word of its name."""
        rows = self.prefect.post("task_runs/filter", flow_runs={"id": {"any_": [flow_run]}})
        times = {row["name"].partition(" ")[0]: (row["start_time"], row["end_time"]) for row in rows}
        return {name: (_seconds(a), _seconds(b)) for name, (a, b) in times.items() if a and b}

    def versions(self, name: str | None = None) -> list[Any]:
        """List the model versions, of one training run or of all."""
        from mlflow import MlflowClient

        found = MlflowClient(self.mlflow_uri, registry_uri=self.mlflow_uri).search_model_versions(
            "name = 'team'"
        )
        for version in found:
            version.tags.update(unpacked(version.tags))
        return [version for version in found if name in (None, version.tags["loreline.run"])]

    def wait_for(self, *names: str, seconds: float = 400) -> None:
        """Wait until each training run is a version that is recorded to its end."""
        try:
            until(lambda: all(self._recorded(name) for name in names), seconds)
        except TimeoutError as error:
            raise TimeoutError(f"{error}: {self.log.read_text()[-5000:]}") from None

    def _recorded(self, name: str) -> bool:
        done = any(
            run["state_type"] == "COMPLETED" and run["state_name"] == "Completed" for run in self.merges(name)
        )
        return done and bool(self.versions(name))


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
