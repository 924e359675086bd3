"""What Prometheus reads: as its own parser takes it, of this project alone, and of a server that is gone, too."""

from pathlib import Path

import pytest
from prefect import flow, tags
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Completed, Running, Scheduled
from prometheus_client.parser import text_string_to_metric_families

from flows.metrics import show_metrics
from tasks.jobs.ledger import Claim, Ledger
from tasks.parameters.params import Params

PARAMS = Params.model_validate(
    {
        "fetch": {"source": "runs/x"},
        "evaluate": {"tasks": ["t"], "primary": "t/nll"},
        "register": {"name": "we are % <one>"},
    }
)
PROJECT = "we are - -one-"


def measured(root: Path) -> dict[tuple[str, ...], float]:
    """Return name and labels of each sample → its value; all are of the project."""
    families = text_string_to_metric_families(show_metrics(PARAMS, root, None) + "\n")
    samples = [sample for family in families for sample in family.samples]
    assert {sample.labels.pop("project") for sample in samples} == {PROJECT}
    return {(sample.name, *sample.labels.values()): sample.value for sample in samples}


def settle(key: str, source: str, state: str) -> float:
    claim = Ledger().claim(key, source)
    assert isinstance(claim, Claim)
    with claim:
        return claim.settle(state, "as it is").since  # type: ignore[arg-type]


def test_runs_count_until_they_are_merged_and_the_last_of_each_is_told(
    tmp_path: Path, no_prefect_server: None
) -> None:
    empty = measured(tmp_path)
    assert empty["loreline_jobs", "merged"] == 0
    assert not [name for name, *_ in empty if "timestamp" in name or "prefect" in name]
    settle("a", "runs/a", "merged")
    settle("b", "runs/b", "failed")
    refused = settle("c", "runs/c", "refused")
    merged = settle("d", "runs/b", "merged")  # with other parameters
    found = measured(tmp_path)
    jobs = {state: found["loreline_jobs", state] for state in ("merged", "refused", "failed", "killed")}
    assert jobs == {"merged": 2, "refused": 1, "failed": 0, "killed": 0}
    assert found["loreline_last_success_timestamp_seconds",] == merged
    assert found["loreline_last_failure_timestamp_seconds",] == refused
    assert found["loreline_disk_used_bytes", "state"] > 0
    assert found["loreline_disk_free_bytes", "state"] > 0


def test_a_file_is_written_in_one_step_and_a_place_that_cannot_be_written_to_is_an_error(
    tmp_path: Path, no_prefect_server: None
) -> None:
    out = tmp_path / "loreline.prom"
    assert show_metrics(PARAMS, tmp_path, out) == str(out)
    assert list(text_string_to_metric_families(out.read_text()))
    assert list(tmp_path.iterdir()) == [out]
    with pytest.raises(OSError, match="No such file"):
        show_metrics(PARAMS, tmp_path, tmp_path / "nowhere" / "loreline.prom")


def test_a_server_that_does_not_answer_is_down_and_the_rest_is_told(tmp_path: Path) -> None:
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        found = measured(tmp_path)
    assert found["loreline_prefect_up",] == 0
    assert ("loreline_jobs", "merged") in found


@pytest.mark.servers
def test_the_queue_and_the_duration_are_the_project_s(tmp_path: Path, prefect: None) -> None:
    for project, states in (
        (PROJECT, [[Scheduled()], [Running()], [Running(), Completed()]]),
        ("other", [[Running()]]),
    ):
        for each in states:
            with tags(f"project:{project}"), get_client(sync_client=True) as client:
                run = client.create_flow_run(flow(lambda: None, name="merge"), tags=[f"project:{project}"])
                for state in each:
                    client.set_flow_run_state(run.id, state, force=True)
    found = measured(tmp_path)
    assert found["loreline_prefect_up",] == 1
    assert (found["loreline_queue", "waiting"], found["loreline_queue", "running"]) == (1, 1)
    assert 0 <= found["loreline_last_merge_duration_seconds",] < 60
