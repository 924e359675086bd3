"""A cron deployment really gets its runs from a real server: what wrong pins of Prefect's needs break silently."""

import asyncio
import os
import signal
import subprocess
import sys
import urllib.error
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.events import DeploymentEventTrigger
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.deployments import deployments
from flows.watch import watch
from loreline import EVENT
from tests.support.servers import PrefectServer, Servers, until

pytestmark = pytest.mark.servers
ROOT = Path(__file__).parents[2]
NAMES = ["merge", "promote", "watch"]
PARAMS = {
    "fetch": {"source": "runs/none"},
    "evaluate": {"tasks": ["t"], "primary": "t/nll"},
    "watch": {"roots": []},
}


@pytest.fixture
def server(servers: Servers) -> PrefectServer:
    return servers.prefect


def named(server: PrefectServer) -> dict[str, dict[str, Any]]:
    found = server.post("deployments/filter")
    return {each["name"]: each for each in sorted(found, key=lambda each: str(each["name"]))}


def test_serving_schedules_runs_until_it_is_stopped_and_again_when_it_is_served_again(
    server: PrefectServer, tmp_path: Path
) -> None:
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    serve_nightly = [sys.executable, "-c", "from flows.cli import main; main()", "serve", "--cron", "0 3 * * *"]  # fmt: skip
    as_a_script_does = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *serve_nightly]  # with an & behind it
    env, log = {**server.env, "PYTHONPATH": str(ROOT)}, tmp_path / "log"

    def serve() -> "subprocess.Popen[bytes]":
        with log.open("ab") as said:
            return subprocess.Popen(as_a_script_does, env=env, cwd=tmp_path, stdout=said, stderr=said, start_new_session=True)  # fmt: skip

    def scheduled() -> list[str]:
        runs = server.post("flow_runs/filter")
        return [run["expected_start_time"].replace("T", " ") for run in runs if run["auto_scheduled"]]

    serving = serve()
    try:
        until(lambda: list(named(server)) == NAMES)
        assert named(server)["watch"]["schedules"][0]["schedule"]["cron"] == "0 3 * * *"
        until(lambda: len(scheduled()) > 1)
        assert all(" 03:00" in time for time in scheduled())
        until(lambda: "Finished in state Completed" in log.read_text())
        serving.terminate()
        assert serving.wait(60) == 0
        assert named(server)["watch"]["paused"]
        assert scheduled() == []
        assert "Traceback" not in log.read_text()
        serving = serve()
        until(lambda: not named(server)["watch"]["paused"] and len(scheduled()) > 1)
    finally:
        os.killpg(serving.pid, signal.SIGKILL)
        serving.wait()


def test_the_team_s_deployment_file_is_accepted(server: PrefectServer) -> None:
    """In place of release 0.1's, which had the event start `watch`: one event must not start two flows."""
    ended = DeploymentEventTrigger(name="training ended", expect={EVENT})
    with temporary_settings({PREFECT_API_URL: server.api_url}):
        before: Any = watch.to_deployment("watch", triggers=[ended])
        before.apply()

    def prefect(*arguments: str) -> None:
        command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
        result = subprocess.run(
            command, env=server.env, cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stdout + result.stderr

    prefect("work-pool", "create", "loreline", "--type", "process")
    prefect("deploy", "--all")
    assert [name for name, each in named(server).items() if each["work_pool_name"] == "loreline"] == NAMES
    assert str(named(server)["merge"]["description"]).startswith("Merge a training run that has ended")
    started = [
        action["deployment_id"] for each in server.post("automations/filter") for action in each["actions"]
    ]
    assert started == [named(server)["merge"]["id"]]


def test_the_team_s_deployments_are_those_that_are_served() -> None:
    written = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    served = asyncio.run(deployments(cron="0 3 * * *"))
    for ours, theirs in zip(served, written, strict=True):
        assert ours.name == theirs["name"]
        assert ours.entrypoint == theirs["entrypoint"].replace("/", ".").replace(".py:", ".")
        crons = [{"cron": entry.schedule.cron, "timezone": "UTC"} for entry in ours.schedules or ()]
        assert crons == theirs.get("schedules", [])
        triggers = [(each.name, each.type, each.expect, each.parameters) for each in ours.triggers]
        assert triggers == [
            (each["name"], each["type"], set(each["expect"]), each["parameters"])
            for each in theirs.get("triggers", ())
        ]


def test_the_form_of_a_deployment_explains_and_checks_its_parameters(server: PrefectServer) -> None:
    """After the deployments were made: they carry the models of params.yaml."""
    deployment = named(server)["merge"]
    sections = deployment["parameter_openapi_schema"]["definitions"]
    shown = sections["SelectParams"]["properties"]["k"]
    assert shown["description"] == "How many checkpoints last_k, top_k and spaced take."
    assert shown["default"] == 5
    fine = {"fetch": {"source": "runs/a"}, "evaluate": {"tasks": ["t"], "primary": "t/nll"}}
    for wrong in ({"select": {"k": 0}}, {"merge": {"lore": {"mu_": 1}}}, {"fetch": {}}):
        with pytest.raises(urllib.error.HTTPError) as refused:
            server.post(
                f"deployments/{deployment['id']}/create_flow_run", parameters={"params": fine | wrong}
            )
        assert refused.value.code == 409
    assert server.post(f"deployments/{deployment['id']}/create_flow_run", parameters={"params": fine})["id"]
