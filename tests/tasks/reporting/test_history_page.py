"""The page over time shows every night that the registry has evidence of, and cannot be broken by names."""

import re
import time
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from tasks.base.errors import BadInput
from tasks.base.records.record import Interval
from tasks.parameters.registration import RegisterParams
from tasks.register_model import register_model
from tasks.registry.history import merged_runs
from tasks.registry.looks import Asked, begin_look, write_look
from tasks.registry.store import connect
from tasks.reporting.history_page import write_history_page
from tasks.reporting.recorded_pages import record_pages
from tasks.reporting.unmerged_table import UnmergedRun


@pytest.fixture
def page(store: RegisterParams, make_artifacts: Any, tmp_path: Path) -> str:
    merges = [
        register_model(
            store,
            make_artifacts(tmp_path / f"run{seed}", seed=seed, gain=seed / 10, decision=decision),
            began=time.time() - 60,
        ).digest
        for seed, decision in enumerate(("KEEP", "INCONCLUSIVE", "PROMOTE"))
    ]
    client = connect(store)
    asked = Asked(kind="vault", items="v" * 64, merge=merges[2], judgement="j")
    look = begin_look(client, "demo", asked, "<script>run</script>", lambda number: 0.1)
    gain = Interval(mean=0.2, low=0.1, high=0.3)
    write_look(client, "demo", look.model_copy(update={"decision": "PROMOTE", "gain": gain, "excess": 0.05}))
    client.create_model_version("demo", "file:///theirs", tags={"their": "own"})  # nothing of Loreline's
    lost = UnmergedRun(0.0, "runs/<b>", "refused", "its weights are <i>pickled</i>")
    write_history_page(tmp_path / "page.html", store, merged_runs(store), [lost])
    return (tmp_path / "page.html").read_text()


def test_nights_and_failures_are_there_the_newest_first_with_their_numbers(page: str) -> None:
    places = [page.index(f"<td>models:/demo/{number}") for number in (3, 2, 1)]
    assert places == sorted(places)
    assert "models:/demo/4" not in page
    assert "vault vvvvvvvv" in page
    assert "<b>refused</b></td><td>runs/&lt;b&gt;</td>" in page
    assert "its weights are &lt;i&gt;pickled&lt;/i&gt;" in page
    assert "1 without a merge" in page
    assert "challenger: version 3 (tiny)" in page
    assert page.count("over last (checkpoint-300)") >= 3
    assert len(re.findall(r"<td>1(\.\d+)? min</td>", page)) == 3
    assert "<h2>Duration</h2>" in page
    assert "<h2>Disk</h2>" in page
    for told in (
        ", KEEP: over last",
        ", PROMOTE: models:/demo/3 (tiny), 0.2 [",
        "PROMOTE: on the vault, 0.2 [",
    ):
        assert told in page
    assert page.count("<svg") == 2 * 4  # scores, gains, duration, disk; for a desktop and a phone


def test_names_are_escaped_and_nothing_is_fetched(page: str) -> None:
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "http://" not in page
    assert "https://" not in page


def test_without_a_run_there_is_a_page_too(store: RegisterParams, tmp_path: Path) -> None:
    write_history_page(tmp_path / "page.html", store, [])
    assert "no test items were looked at yet" in (tmp_path / "page.html").read_text()
    with pytest.raises(BadInput, match="cannot be written"):
        write_history_page(tmp_path / "none" / "page.html", store, [])


def test_report_page_and_night_are_kept_with_a_version_once(
    store: RegisterParams, make_artifacts: Any, tmp_path: Path
) -> None:
    """Killed between them or not, and run again: what was kept stays, and the night is one step."""
    for seed in (1, 2):
        registration = register_model(store, artifacts := make_artifacts(tmp_path / str(seed), seed=seed))
        for page in ("http://prefect/first", "http://prefect/again"):
            record_pages(store, registration, artifacts, links={"flow run": page})
    client = connect(store)
    assert {file.path for file in client.list_artifacts(registration.run_id)} == {
        "report.html",
        "history.html",
        "README.md",
        "evaluation",
        "figures",
    }
    path = Path(client.download_artifacts(registration.run_id, "report.html", str(tmp_path)))
    report = path.read_text()
    assert 'href="http://prefect/first"' in report
    assert "former report: runs:/" in report
    card = Path(client.download_artifacts(registration.run_id, "README.md", str(tmp_path))).read_text()
    assert ModelCard(card).data.eval_results
    assert "## What was not shown" in card
    home = client.get_experiment_by_name("demo").experiment_id
    [nights] = client.search_runs([home], "tags.`loreline.nights` = 'all'")
    assert [step.step for step in client.get_metric_history(nights.info.run_id, "1 gain/gain")] == [1, 2]
