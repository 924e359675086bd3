"""Two projects and two machines on one Prefect server: every run is merged where it belongs, and nowhere else.

The machines are two host names with clones and state directories of their own. Each run has one checkpoint, so
that whoever takes it refuses it at once and says so in its ledger.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from loreline import announce
from tasks.jobs.ledger import Ledger
from tests.support.ended_runs import finished
from tests.support.servers import Servers, until
from tests.support.tiny_world import write_world

pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(
        subprocess.run(["unshare", "--uts", "true"], capture_output=True, check=False).returncode != 0,
        reason="host names of one's own are not permitted",
    ),
]
ROOT = Path(__file__).parents[2]
AS_HOST = ["unshare", "--uts", "sh", "-c", 'hostname "$0"; exec "$@"']
SERVE = [sys.executable, "-c", "from flows.cli import main; main()", "serve", "--params", "own.yaml"]
ANNOUNCE = [sys.executable, "-S", announce.__file__]


class Machine:
    """A machine that serves a project from a directory of its own."""

    def __init__(self, root: Path, host: str, project: str, servers: Servers, *roots: str) -> None:
        self.root, self.host, self._servers = root, host, servers
        root.mkdir()
        params = {
            "fetch": {"source": "runs/none", "settle": 0},
            "evaluate": {
                "tasks": ["likely"],
                "include_path": str(write_world(root / "sums")),
                "primary": "likely/acc",
            },
            "register": {"name": project},
            "watch": {"roots": ["runs/*", *roots], "quiet_for": 3600},
        }
        (root / "own.yaml").write_text(yaml.safe_dump(params))
        self.state, self.name = root / "state", f"{project}@{host}"
        self.env = servers.prefect.env | {
            "MLFLOW_TRACKING_URI": servers.mlflow.uri,
            "PYTHONPATH": str(ROOT),
            "LORELINE_HOME": str(self.state),
            "XDG_CACHE_HOME": str(root / "cache"),
        }

    def run(self, *command: str, **env: str) -> "subprocess.Popen[bytes]":
        """Start a command on this machine."""
        with (self.root / "log").open("ab") as log:
            return subprocess.Popen(
                [*AS_HOST, self.host, *command], cwd=self.root, env=self.env | env, stdout=log, stderr=log
            )

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Serve, from when the first look is over."""
        serving = self.run(*SERVE)
        try:
            until(lambda: "look around" in self.log and "in state Completed" in self.log, 120)
            yield
        finally:
            for process in [*psutil.Process(serving.pid).children(recursive=True), serving]:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
            serving.wait()

    @property
    def log(self) -> str:
        return (self.root / "log").read_text()

    def announce(self, run: Path, **env: str) -> None:
        """Announce a run as its Trainer on this machine does."""
        assert self.run(*ANNOUNCE, str(run), run.name, "20", **env).wait(30) == 0
        assert "announced" in (self.root / "cache" / "loreline" / "announce.log").read_text().splitlines()[-1]

    def taken(self) -> set[str]:
        """Return the names of the runs that this machine took."""
        return {Path(entry.source).name for entry in Ledger(self.state / "ledger.db").entries()}

    def told(self, run: str) -> list[str]:
        """Return what the flow runs of this run's name and address ended with."""
        found: list[dict[str, Any]] = self._servers.prefect.post(
            "flow_runs/filter", flows={"name": {"any_": ["merge"]}}, limit=100
        )
        return [
            each["state"]["message"]
            for each in found
            if each["end_time"] and str(each["parameters"]["run"]).endswith(run)
        ]


def test_every_run_goes_to_the_project_and_the_machine_that_has_it(servers: Servers, tmp_path: Path) -> None:
    one = Machine(tmp_path / "one", "gpu1", "place", servers)
    two = Machine(tmp_path / "two", "gpu2", "place", servers)
    other = Machine(tmp_path / "other", "gpu2", "elsewhere", servers)
    seen = finished(two.root / "runs" / "seen", 10)  # ended before anybody serves
    with one.serving(), two.serving(), other.serving():
        until(lambda: two.taken() == {"seen"}, 120)
        for machine in (one, two, other):
            machine.announce(finished(machine.root / "runs" / f"of {machine.root.name}", 10))
        named = finished(tmp_path / "anywhere" / "named", 10)
        other.announce(named, LORELINE_PROJECT="elsewhere")
        until(lambda: one.taken() == {"of one"}, 120)
        until(lambda: two.taken() == {"seen", "of two"}, 120)
        until(lambda: other.taken() == {"of other", "named"}, 120)
        nobody_s = finished(tmp_path / "anywhere" / "nobody's", 10)
        one.announce(nobody_s)
        until(lambda: len([said for said in one.told("nobody's") if "in no root of" in said]) == 2, 120)
        until(lambda: one.told("named"), 120)
        assert all("nothing to merge" in said for said in one.told("named"))
    assert seen.is_dir()
    assert (one.taken(), two.taken(), other.taken()) == (
        {"of one"},
        {"seen", "of two"},
        {"of other", "named"},
    )
