import json
from pathlib import Path
from typing import Any

import pytest

from tasks.base.publish import MANIFEST, Manifest
from tasks.base.records import Evaluation, MergeReport, Selection, TrainingRun
from tasks.registry import facts
from tasks.registry.facts import MergeRecords
from tasks.registry.runs import mlflow_name


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
    found = facts.metrics(merged.evaluation)
    assert found["merge/sums_easy/acc"] == 0.5
    assert found["last/sums_easy/acc.low"] == 0.4
    assert found["gain_over_last/sums_easy/acc.high"] == 0.6
    assert found["gain_over_last/sums_easy/acc.p_value"] == 0.01
    assert len(found) == 10


def test_parameters_are_flattened(merged: MergeRecords) -> None:
    assert facts.params(merged.report) == {
        "method": "lore",
        "lam": "0.3",
        "lore.mu": "1.0",
        "lore.anchor": "mean",
        "weights": "[0.5, 0.5]",
    }


def test_tags_say_where_the_version_came_from(merged: MergeRecords) -> None:
    tags = facts.version_tags(merged)
    assert tags["loreline.merge"] == merged.report.digest
    assert tags["loreline.verdict"] == "PROMOTE"
    assert json.loads(tags["loreline.steps"]) == [100, 200, 300]
    assert json.loads(tags["loreline.checkpoints"]) == [c.digest for c in merged.selection.chosen]
    assert json.loads(tags["loreline.parameters"])["lore"] == {"mu": 1.0, "anchor": "mean"}


def test_description_begins_with_the_verdict(merged: MergeRecords) -> None:
    assert facts.description(merged) == (
        "PROMOTE: the merge gains 0.5. "
        "Merged by lore from 3 checkpoints of tiny (steps 100 to 300, chosen by last_k)."
    )


def test_too_long_for_mlflow_is_cut_visibly(merged: MergeRecords) -> None:
    long = {"note": "n" * 200_000}
    merged = merged._replace(
        report=merged.report.model_copy(update={"parameters": long, "notes": ("m" * 9000,)})
    )
    assert len(facts.version_tags(merged)["loreline.parameters"]) == 100_000
    assert 4990 < len(facts.description(merged)) <= 5000
    assert facts.params(merged.report)["note"].endswith("n…")


@pytest.mark.parametrize(
    "name", ["merge/a,b+c/exact_match", "merge//x", "../x/./y", "/a/", "m:1/ü ß", "a" * 400, "a/" * 200]
)
def test_names_are_made_acceptable_to_mlflow(name: str) -> None:
    from mlflow.utils.validation import _validate_metric, _validate_param

    _validate_metric(mlflow_name(name), 1.0, 0, 0)
    _validate_param(mlflow_name(name), "x")
