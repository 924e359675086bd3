import json
from pathlib import Path
from typing import Any

import pytest

from tasks.base.publish import MANIFEST, Manifest
from tasks.base.records.evaluation import Evaluation
from tasks.base.records.merge import MergeReport
from tasks.base.records.selection import Selection
from tasks.base.records.training_run import TrainingRun
from tasks.registry import facts
from tasks.registry.facts import MergeRecords
from tasks.registry.runs import mlflow_name
from tasks.registry.tags import FOR_PEOPLE, RECORD, packed, unpacked


@pytest.fixture
def merged(make_artifacts: Any) -> MergeRecords:
    artifacts: Path = make_artifacts()
    return MergeRecords(
        run=TrainingRun.read(artifacts / "run" / "run.json"),
        selection=Selection.read(artifacts / "selection" / "selection.json"),
        report=MergeReport.read(artifacts / "merged" / "merge.json"),
        evaluation=Evaluation.read(artifacts / "evaluation" / "evaluation.json"),
        manifest=Manifest.read(artifacts / "merged" / MANIFEST),
    )


def test_every_score_and_difference_becomes_metrics(merged: MergeRecords) -> None:
    found = facts.metrics(merged, seconds=90.0)
    assert (found["gain"], found["gain.low"], found["seconds"]) == (0.5, 0.4, 90.0)
    assert found["bytes"] == sum(file.size for file in merged.manifest.files)
    assert found["merge/sums_easy/acc"] == 0.5
    assert found["last/sums_easy/acc.low"] == 0.4
    assert found["gain_over_last/sums_easy/acc.high"] == 0.6
    assert found["gain_over_last/sums_easy/acc.p_value"] == 0.01
    assert len(found) == 10 + 3 + 2


def test_parameters_are_flattened_with_what_was_selected(merged: MergeRecords) -> None:
    assert facts.params(merged) == {
        "method": "lore",
        "lam": "0.3",
        "lore.mu": "1.0",
        "lore.anchor": "mean",
        "weights": "[0.5, 0.5]",
        "run": "tiny",
        "source": "/training",
        "select.rule": "last_k",
        "select.metric": "eval_loss",
        "checkpoints": "3",
        "steps": "[100, 200, 300]",
        "primary": "sums,easy/acc",
    }


def test_facts_say_where_the_version_came_from(merged: MergeRecords) -> None:
    found = facts.version_facts_of(merged)
    assert found["loreline.merge"] == merged.report.digest
    assert found["loreline.verdict"] == "PROMOTE"
    assert found["loreline.gain"] == "+0.5 [+0.4, +0.6] in sums,easy/acc over last (checkpoint-300)"
    assert json.loads(found["loreline.steps"]) == [100, 200, 300]
    assert json.loads(found["loreline.checkpoints"]) == [c.digest for c in merged.selection.chosen]


def test_a_person_reads_six_tags_at_most_and_code_finds_every_fact(merged: MergeRecords) -> None:
    """One record holds the rest; the git tag comes later. What has a tag of its own counts: it may be newer."""
    found = facts.version_facts_of(merged)
    tags = packed(found | {"loreline.report": "runs:/1/report.html"})
    assert tags.keys() == {*FOR_PEOPLE, RECORD}
    assert len(tags) - 1 + 1 <= 6
    assert unpacked(tags) == found | {"loreline.report": "runs:/1/report.html"}
    assert unpacked(found) == found  # as releases before wrote them
    assert unpacked(tags | {"loreline.files": "newer"})["loreline.files"] == "newer"
    assert unpacked({RECORD: "no record", "a": "b"}) == unpacked({RECORD: "[1]", "a": "b"}) == {"a": "b"}


def test_description_is_verdict_table_and_what_was_merged_in_paragraphs(merged: MergeRecords) -> None:
    verdict, table, report, what = facts.description(merged, "[Report](./#/x)").split("\n\n")
    assert verdict == "PROMOTE: the merge gains 0.5."
    assert table.splitlines()[0] == "| sums,easy/acc | score | merge's gain |"
    assert len(table.splitlines()) == 2 + len(merged.evaluation.models)
    assert "+0.5 [+0.4, +0.6]" in table
    assert report == "[Report](./#/x)"
    assert what == "Merged by lore from 3 checkpoints of tiny (steps 100 to 300, chosen by last_k)."


def test_the_dataset_is_the_task_with_the_digest_of_its_items(merged: MergeRecords) -> None:
    assert facts.datasets(merged.evaluation) == []  # records of 0.1.0 say nothing of it
    [found] = facts.datasets(merged.evaluation.model_copy(update={"items": {"sums,easy": "d" * 64}}))
    assert (found.dataset.name, found.dataset.digest) == ("sums,easy", "d" * 16)


def test_too_long_for_mlflow_is_cut_visibly(merged: MergeRecords) -> None:
    long = {"note": "n" * 200_000}
    merged = merged._replace(
        report=merged.report.model_copy(update={"parameters": long, "notes": ("m" * 9000,)})
    )
    assert 4990 < len(facts.description(merged)) <= 5000
    assert facts.params(merged)["note"].endswith("n…")


@pytest.mark.parametrize(
    "name", ["merge/a,b+c/exact_match", "merge//x", "../x/./y", "/a/", "m:1/ü ß", "a" * 400, "a/" * 200]
)
def test_names_are_made_acceptable_to_mlflow(name: str) -> None:
    from mlflow.utils.validation import _validate_metric, _validate_param

    _validate_metric(mlflow_name(name), 1.0, 0, 0)
    _validate_param(mlflow_name(name), "x")
