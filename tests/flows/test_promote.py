"""The promote flow on a real Prefect server, the registry on a real MLflow server: asked, answered, timed out."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import State
from prefect.deployments.runner import EntrypointType
from prefect.exceptions import Pause
from prefect.flow_engine import run_flow
from prefect.input.actions import read_flow_run_input
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.promote import promote
from tasks.base.errors import BadInput
from tasks.parameters.params import Params
from tasks.parameters.registration import RegisterParams
from tasks.promote_version import promote_version, roll_back
from tasks.registry.store import connect
from tasks.registry.versions import aliases, version_of
from tests.support.promotions import promotable, register
from tests.support.servers import Servers, both_servers, until

pytestmark = pytest.mark.servers
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with (
        both_servers(tmp_path_factory.mktemp("servers")) as running,
        temporary_settings({PREFECT_API_URL: running.prefect.api_url}),
    ):
        yield running


@pytest.fixture
def params(
    servers: Servers, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Params:
    """Return parameters with a registered model of this test's own; this machine's params.yaml has the tasks."""
    found = promotable(tmp_path, RegisterParams(name=request.node.name, tracking_uri=servers.mlflow.uri))
    tree = yaml.safe_dump(found.model_dump(mode="json", by_alias=True))
    (tmp_path / "params.yaml").write_text(tree, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return found


@pytest.fixture
def add(params: Params, tmp_path: Path) -> Callable[[int], int]:
    """Register a merge that gets so many of 100 items right."""
    return lambda right: register(params, tmp_path / f"merge-{right}", right)


@pytest.fixture
def client(servers: Servers) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as found:
        yield found


class Asked:
    """A flow run of the deployment, executed here as a worker would: from the top each time."""

    def __init__(self, client: SyncPrefectClient, params: Params, **parameters: Any) -> None:
        self.client = client
        deployment: Any = promote.to_deployment("promote", entrypoint_type=EntrypointType.MODULE_PATH)
        plain = params.model_dump(mode="json", by_alias=True)
        run = client.create_flow_run_from_deployment(
            deployment.apply(), parameters={"params": plain, **parameters}
        )
        self.id: UUID = run.id

    def go(self) -> State[Any]:
        with suppress(Pause):
            run_flow(promote, flow_run=self.client.read_flow_run(self.id), return_type="state")
        return self.state

    @property
    def state(self) -> State[Any]:
        state = self.client.read_flow_run(self.id).state
        assert state is not None
        return state

    def form(self, part: str) -> Any:
        """Return what the UI shows of the question."""
        keys = self.state.state_details.run_input_keyset
        assert keys is not None
        return read_flow_run_input(keys[part], flow_run_id=self.id)

    def answer(self, **values: Any) -> str:
        """Answer in the UI: validated by the server, against the form."""
        return str(self.client.resume_flow_run(self.id, run_input=values).status.value)


def now(params: Params) -> dict[str, int]:
    found = aliases(connect(params.register_), params.register_.name)
    return {alias: number for alias, number in found.items() if alias != "challenger"}


def tags(params: Params, version: int) -> dict[str, str]:
    return version_of(connect(params.register_), params.register_.name, version).tags


def test_approval_shows_the_evidence_and_promotes_what_was_asked_about(
    client: SyncPrefectClient, params: Params, add: Callable[[int], int]
) -> None:
    """Although the challenger is another version by the time that somebody answers."""
    add(60), promote_version(params, 1, "ann", ""), add(80)
    run = Asked(client, params)
    assert run.go().name == "Suspended"
    shown = run.form("description")
    assert shown.startswith("**Champion now: version 1**, of tiny, gain ")
    assert ", promoted by ann, at 20" in shown
    assert f"**Asked: models:/{params.register_.name}/2**" in shown
    assert "PROMOTE: likely/acc improves by 0.2" in shown
    assert "| champion v1 | 0.6" in shown
    assert set(run.form("schema")["properties"]) == {"answer", "who", "why"}
    [artifact] = [a for a in client.read_artifacts() if a.flow_run_id == run.id]
    assert "| champion v1 | 0.6" in str(artifact.data)
    assert str(artifact.data).startswith(f"## ✓ PROMOTE: {params.register_.name} 2 beside version 1")
    assert client.read_flow_run(run.id).name == f"✓ PROMOTE: {params.register_.name} 2 beside version 1"
    assert run.answer(answer="approve") == run.answer(answer="approve", who=" ") == "REJECT"  # by whom?
    assert run.answer(answer="later", who="bob") == "ACCEPT"
    assert run.go().name == "Suspended"  # asks again
    assert now(params) == {"champion": 1}
    add(55)  # The challenger is version 3 now.
    assert run.answer(answer="approve", who="bob", why="it is better") == "ACCEPT"
    ended = run.go()
    assert ended.is_completed()
    assert f"models:/{params.register_.name}/2 (was 1), PROMOTE" in str(ended.message)
    assert now(params) == {"champion": 2, "previous-champion": 1}
    found = tags(params, 2)
    assert (found["loreline.promoted_by"], found["loreline.promoted_why"]) == ("bob", "it is better")
    roll_back(params.register_, "ann", "it swears")
    assert now(params) == {"champion": 1, "previous-champion": 2}


def test_refused_nothing_moves_and_the_refusal_is_on_record(
    client: SyncPrefectClient, params: Params, add: Callable[[int], int]
) -> None:
    add(60)
    run = Asked(client, params, version=1)
    run.go()
    run.answer(answer="refuse", who="bob", why="too slow")
    ended = run.go()
    assert ended.is_completed()
    assert str(ended.message).endswith("/1 refused by bob: too slow")
    assert now(params) == {}
    assert '"why": "too slow"' in tags(params, 1)["loreline.refused"]


def test_nobody_answers_in_time(client: SyncPrefectClient, params: Params, add: Callable[[int], int]) -> None:
    """The server ends the run; an answer that comes later is not accepted."""
    add(60)
    run = Asked(client, params, version=1, hours=1 / 3600)
    assert run.go().name == "Suspended"
    until(lambda: run.state.is_failed())
    assert run.state.message == "The flow was paused and never resumed."
    assert run.answer(answer="approve", who="bob") != "ACCEPT"
    assert now(params) == {}


def test_approved_after_a_better_one_became_champion(
    client: SyncPrefectClient, params: Params, add: Callable[[int], int]
) -> None:
    """Nor does a reason to force it help: nobody was told that it would be against the verdict."""
    add(60), add(80)
    run = Asked(client, params, version=1, force_reason="whatever comes")
    run.go()
    assert "AGAINST" not in run.form("description")
    promote_version(params, 2, "ann", "")
    run.answer(answer="approve", who="bob")
    ended = run.go()
    assert ended.is_completed()
    assert str(ended.message).startswith("approved by bob, but not promoted: models:/")
    assert "KEEP: likely/acc worsens by 0.2" in str(ended.message)
    assert now(params) == {"champion": 2}


def test_against_the_verdict_only_by_force_and_loudly(
    client: SyncPrefectClient, params: Params, add: Callable[[int], int]
) -> None:
    add(60), add(50)
    promote_version(params, 1, "ann", "")
    plain = Asked(client, params, version=2).go()
    assert plain.is_completed()
    assert str(plain.message).startswith("not promoted: KEEP")
    run = Asked(client, params, version=2, force_reason="the other one swears")
    run.go()
    assert run.form("description").startswith("**AGAINST THE VERDICT**, which is KEEP. Forced: the other")
    run.answer(answer="approve", who="eve")
    assert "(was 1), FORCED, KEEP" in str(run.go().message)
    assert tags(params, 2)["loreline.forced"] == "the other one swears"


def test_without_a_deployment_it_says_how_to_ask(params: Params, add: Callable[[int], int]) -> None:
    add(60)
    with pytest.raises(
        BadInput, match="promote: it asks in Prefect's UI, for which it has to run as a deploy"
    ):
        promote(version=1, params=params)
    assert now(params) == {}


def test_another_process_goes_on_when_the_answer_comes(
    client: SyncPrefectClient, params: Params, servers: Servers, add: Callable[[int], int]
) -> None:
    """Nothing waits while it is suspended: a worker that starts then, finishes it."""
    add(60)
    run = Asked(client, params, version=1)
    run.go()
    assert run.answer(answer="approve", who="bob") == "ACCEPT"
    prefect = {key: value for key, value in servers.prefect.env.items() if key.startswith("PREFECT_")}
    env = {**os.environ, **prefect, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "prefect.engine", str(run.id)]  # what workers start
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert run.state.is_completed()
    assert now(params) == {"champion": 1}
