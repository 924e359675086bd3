"""A cron deployment really gets its runs from a real server: what wrong pins of Prefect's needs break silently."""

import os
import signal
import socket
import subprocess
import sys
import urllib.error
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.parameters.selection import SelectParams
from tests.support.servers import PrefectServer, Servers, until

pytestmark = pytest.mark.servers
ROOT = Path(__file__).parents[2]
HOST = socket.gethostname()
NAMES = ["merge/demo", f"merge/demo@{HOST}", "promote/demo", (WATCH := f"watch/demo@{HOST}")]
PARAMS = {
    "fetch": {"source": "runs/none"},
    "evaluate": {"tasks": ["t"], "primary": "t/nll"},
    "register": {"name": "demo"},
    "watch": {"roots": []},
}


@pytest.fixture
def server(servers: Servers) -> PrefectServer:
    return servers.prefect


def named(server: PrefectServer) -> dict[str, dict[str, Any]]:
    """Return the deployments of this project, as flow/name."""
    flows = {each["id"]: each["name"] for each in server.post("flows/filter")}
    found = {f"{flows[each['flow_id']]}/{each['name']}": each for each in server.post("deployments/filter")}
    return {name: found[name] for name in sorted(found) if name.partition("/")[2].startswith("demo")}


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
        ours = {"id": {"any_": [named(server)[WATCH]["id"]]}}
        runs = server.post("flow_runs/filter", deployments=ours)
        return [run["expected_start_time"].replace("T", " ") for run in runs if run["auto_scheduled"]]

    serving = serve()
    try:
        until(lambda: list(named(server)) == NAMES)
        assert named(server)[WATCH]["schedules"][0]["schedule"]["cron"] == "0 3 * * *"
        until(lambda: len(scheduled()) > 1)
        assert all(" 03:00" in time for time in scheduled())
        until(lambda: "Finished in state Completed" in log.read_text())
        serving.terminate()
        assert serving.wait(60) == 0
        assert named(server)[WATCH]["paused"]
        assert scheduled() == []
        assert "Traceback" not in log.read_text()
        serving = serve()
        until(lambda: not named(server)[WATCH]["paused"] and len(scheduled()) > 1)
    finally:
        os.killpg(serving.pid, signal.SIGKILL)
        serving.wait()


def test_one_deployment_hears_announcements_and_says_what_it_does(server: PrefectServer) -> None:
    assert str(named(server)["merge/demo"]["description"]).startswith("Merge a training run that has ended")
    heard = [each for each in server.post("automations/filter") if each["name"] == "training ended: demo"]
    started = [action["deployment_id"] for each in heard for action in each["actions"]]
    assert started == [named(server)["merge/demo"]["id"]]


def test_the_form_of_a_deployment_explains_and_checks_its_parameters(server: PrefectServer) -> None:
    """After the deployments were made: they carry the models of params.yaml."""
    deployment = named(server)["merge/demo"]
    sections = deployment["parameter_openapi_schema"]["definitions"]
    shown = sections["SelectParams"]["properties"]["k"]
    assert shown["description"] == "How many checkpoints last_k, top_k and spaced take."
    assert shown["default"] == SelectParams().k
    fine = {"fetch": {"source": "runs/a"}, "evaluate": {"tasks": ["t"], "primary": "t/nll"}}
    for wrong in ({"select": {"k": 0}}, {"merge": {"lore": {"mu_": 1}}}, {"fetch": {}}):
        with pytest.raises(urllib.error.HTTPError) as refused:
            server.post(
                f"deployments/{deployment['id']}/create_flow_run", parameters={"params": fine | wrong}
            )
        assert refused.value.code == 409
    assert server.post(f"deployments/{deployment['id']}/create_flow_run", parameters={"params": fine})["id"]
