"""What a look around does with each run that it finds, by hand and as a flow; on a temporary server of Prefect's."""

import socket
from pathlib import Path
from uuid import UUID

import pytest
import yaml
from prefect.client.orchestration import get_client

from flows.by_hand import merge_ended_runs, merge_run
from flows.watch import watch
from tasks.base.errors import LorelineError
from tasks.fetch_run import fetch_run
from tasks.jobs.identity import key_of, seen_as
from tasks.jobs.ledger import Claim, Ledger
from tasks.parameters.params import read_params
from tasks.registry import team_claim
from tasks.registry.store import connect
from tasks.registry.team_claim import take_claim
from tasks.registry.versions import RUN_DIGEST
from tasks.sources.addresses import observe
from tests.support.claims import entry_elsewhere
from tests.support.ended_runs import back, finished
from tests.support.tiny import write_checkpoint
from tests.support.tiny_world import write_world


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Be in a project with a run that goes on, and one that ended with a single checkpoint."""
    write_checkpoint(tmp_path / "runs" / "going on", 10)
    finished(tmp_path / "runs" / "single", 10)
    params = {
        "fetch": {"source": "runs/none", "settle": 0},
        "evaluate": {
            "tasks": ["likely"],
            "include_path": str(write_world(tmp_path)),
            "primary": "likely/acc",
        },
        "watch": {"roots": ["runs/*"], "quiet_for": 3600},
    }
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def roots(project: Path, *roots: str) -> None:
    tree = yaml.safe_load((project / "params.yaml").read_text())
    (project / "params.yaml").write_text(yaml.safe_dump(tree | {"watch": {"roots": list(roots)}}))


def test_each_run_is_named_and_what_cannot_be_merged_is_tried_once(
    prefect: None, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(LorelineError, match="runs/single: nothing to merge"):
        merge_ended_runs()
    said = capsys.readouterr().err
    assert "runs/going on: left alone: " in said
    assert "runs/single: has ended: " in said
    (entry,) = Ledger().entries()
    assert (entry.source, entry.state) == ("runs/single", "refused")
    merge_ended_runs()
    assert "runs/single: was refused (nothing to merge" in capsys.readouterr().err
    assert Ledger().entries() == [entry]
    state = watch(return_state=True)
    assert (state.type.value, state.name) == ("COMPLETED", "Refused")  # not plain green
    assert "runs/single: nothing to merge" in str(state.message)
    with get_client(sync_client=True) as client:
        merged = client.read_flow_run(UUID(str(entry.flow_run)))
        looked = client.read_flow_run(state.state_details.flow_run_id)
    assert merged.tags == ["project:loreline"]  # by which its automations and its prune find it
    assert looked.name == "look around: 1 refused"


def test_what_was_refused_is_tried_again_when_it_changed(prefect: None, project: Path) -> None:
    with pytest.raises(LorelineError, match="nothing to merge"):
        merge_ended_runs()
    config = project / "runs" / "single" / "checkpoint-10" / "config.json"
    config.write_text(config.read_text() + "\n")
    back(project / "runs" / "single")
    with pytest.raises(LorelineError, match="nothing to merge"):
        merge_ended_runs()
    assert [entry.source for entry in Ledger().entries()] == ["runs/single"] * 2


def test_a_root_that_cannot_be_used_keeps_no_other_waiting(prefect: None, project: Path) -> None:
    roots(project, "nowhere", "x" * 300, "runs/single")
    with pytest.raises(LorelineError) as caught:
        merge_ended_runs()
    assert "watch.roots: nowhere: no such directory" in str(caught.value)
    assert "xxx: File name too long; choose a shorter name" in str(caught.value)
    assert "runs/single: nothing to merge" in str(caught.value)


def test_a_run_that_was_announced_is_not_asked_whether_it_ended(prefect: None, project: Path) -> None:
    """The event comes from its Trainer; what is not ready is left to the fetch stage."""
    with pytest.raises(LorelineError, match="nothing to merge"):
        merge_run(str(project / "runs" / "going on"))
    (entry,) = Ledger().entries()
    assert entry.source == "runs/going on"


def test_without_a_deployment_to_start_the_flow_says_what_makes_one(prefect: None, project: Path) -> None:
    """And what looks around computes nothing itself."""
    with pytest.raises(
        LorelineError,
        match=f"runs/single: merge/loreline@{socket.gethostname()}: there is no such deployment; make it with",
    ):
        watch()
    assert Ledger().entries() == []


def test_runs_of_a_store_are_looked_at_like_directories(
    prefect: None, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = f"file://{project}/runs"
    roots(project, store)
    with pytest.raises(LorelineError, match=f"{store}/single: nothing to merge"):
        merge_ended_runs()
    assert f"{store}/going on: left alone: still training: step 10" in capsys.readouterr().err
    merge_ended_runs()
    assert f"{store}/single: was refused" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_that_was_merged_stays_merged_when_parameters_change_until_it_is_asked_for(
    prefect: None, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And a run that was changed since, as by training on, is another one."""
    params = read_params(Path("params.yaml"))
    status = observe("runs/single", params.watch.quiet_for, params.register_).digest
    claim = Ledger().claim(key_of(status, params), "runs/single", seen=seen_as(status, params))
    assert isinstance(claim, Claim)
    claim.settle("merged", "models:/demo/1: KEEP", identity="i", version="models:/demo/1")
    tree = yaml.safe_load((project / "params.yaml").read_text())
    tree["evaluate"]["limit"] = 5
    (project / "params.yaml").write_text(yaml.safe_dump(tree))
    merge_ended_runs()
    said = capsys.readouterr().err
    assert "runs/single: was merged with other parameters; --refresh merges it again: models:/demo" in said
    merge_run("runs/single")
    assert "runs/single: models:/demo/1: KEEP" in capsys.readouterr().err
    with pytest.raises(LorelineError, match="runs/single: nothing to merge"):
        merge_ended_runs(refresh=True)
    with pytest.raises(LorelineError, match="nothing to merge"):
        merge_run("runs/single", refresh=True)
    config = project / "runs" / "single" / "checkpoint-10" / "config.json"
    config.write_text(config.read_text() + "\n")
    back(project / "runs" / "single")
    with pytest.raises(LorelineError, match="runs/single: nothing to merge"):
        merge_ended_runs()


@pytest.mark.slow
def test_a_run_that_another_machine_registered_is_not_merged_again(
    prefect: None, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor one that it is merging: the registry is what machines share where their ledgers are their own."""
    monkeypatch.setattr(team_claim, "OF_ONE_MACHINE", ())
    for step in (5, 20):
        finished(project / "runs" / "several", step)
    roots(project, "runs/several")
    tree = yaml.safe_load((project / "params.yaml").read_text())
    tree["register"] = {"name": "demo", "tracking_uri": f"sqlite:///{project}/mlflow.db"}
    (project / "params.yaml").write_text(yaml.safe_dump(tree))
    params = read_params(Path("params.yaml"))
    run = fetch_run(params.fetch.model_copy(update={"source": "runs/several"}), project / "theirs")
    seen = seen_as(observe("runs/several", params.watch.quiet_for, params.register_).digest, params)
    theirs = entry_elsewhere("runs/several").model_dump_json()
    with take_claim(params.register_, seen, theirs, "runs/several"):  # type: ignore[union-attr]
        merge_ended_runs()
    assert "runs/several: is being merged by process 7 on another" in capsys.readouterr().err
    assert Ledger().entries() == []
    client = connect(params.register_)
    client.create_registered_model("demo")
    told = {RUN_DIGEST: run.digest, "loreline.git_tag": "merge/several"}
    client.create_model_version("demo", f"file://{project}/theirs", tags=told)
    merge_ended_runs()
    assert "models:/demo/1 in " in (said := capsys.readouterr().err)
    assert "is of the same run" in said
    (entry,) = Ledger().entries()
    assert (entry.state, entry.version, entry.tag) == ("merged", "models:/demo/1", "merge/several")
    with pytest.raises(LorelineError):
        merge_ended_runs(refresh=True)  # it is tried: this machine has no such model
    assert [model.name for model in client.search_registered_models()] == ["demo"]
