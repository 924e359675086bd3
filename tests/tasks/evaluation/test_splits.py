"""What judges, confirms and chooses are documents that share nothing, asked by a real model."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tasks.base.errors import BadInput
from tasks.base.model_files import ModelFiles
from tasks.evaluation.measure import evaluate_model
from tasks.evaluation.splits import splits_of
from tasks.evaluation.task_spec import Split
from tasks.parameters.evaluation import EvaluateParams
from tests.support.tiny_world import HEAD, TASKS, rows, write_task


def params_for(folder: Path, **more: Any) -> EvaluateParams:
    return EvaluateParams.model_validate(
        {
            "tasks": ("likely",),
            "primary": "likely/nll",
            "include_path": str(folder),
            "device": "cpu",
            **more,
        }
    )


def write_other(folder: Path, name: str, first: int, count: int) -> None:
    """Write a task over rows of its own."""
    data = folder.parent / "data" / f"{name}.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows(first + count)[first:]))
    text = HEAD.format(name=name) + TASKS["likely"]
    write_task(folder, name, "").write_text(text.replace("items.jsonl", data.name))


def likelihoods(tiny: Path, split: Split) -> Counter[float]:
    found = evaluate_model(lambda: ModelFiles(tiny), "model", split.tasks, split.params)
    return Counter(found[split.tasks[0].name].values["nll"])


@pytest.mark.parametrize("cluster", [None, "question"])
def test_a_share_is_kept_from_the_tasks_themselves(tiny: Path, folder: Path, cluster: str | None) -> None:
    whole = likelihoods(tiny, splits_of(params_for(folder)).test)
    splits = splits_of(params_for(folder, vault_share=0.5, cluster=cluster))
    assert splits.vault
    test, vault = likelihoods(tiny, splits.test), likelihoods(tiny, splits.vault)
    assert test + vault == whole
    assert not test.keys() & vault.keys()  # the same question comes three times, and falls on one side
    assert splits.test.items != splits.vault.items


def test_a_limit_holds_within_a_part(tiny: Path, folder: Path) -> None:
    splits = splits_of(params_for(folder, vault_share=0.5, limit=2))
    assert splits.vault
    assert [likelihoods(tiny, split).total() for split in (splits.test, splits.vault)] == [2, 2]


def test_a_share_that_leaves_nothing_is_refused(tiny: Path, folder: Path) -> None:
    vault = splits_of(params_for(folder, vault_share=1e-9)).vault
    assert vault
    with pytest.raises(BadInput, match="vault_share: likely has no document left"):
        likelihoods(tiny, vault)


def test_other_tasks_confirm_and_choose_by_the_same_metric(tiny: Path, folder: Path) -> None:
    write_other(folder, "kept", 12, 6)
    write_other(folder, "chosen", 30, 9)
    splits = splits_of(
        params_for(folder, vault=("kept",), select_tasks=("chosen",), margins={"likely/acc": 0.1})
    )
    assert splits.vault
    assert splits.select
    assert (splits.vault.params.primary, splits.select.params.primary) == ("kept/nll", "chosen/nll")
    assert likelihoods(tiny, splits.vault).total() == 6
    assert likelihoods(tiny, splits.select).total() == 9


def test_a_vault_s_documents_must_not_be_asked_elsewhere(folder: Path) -> None:
    write_other(folder, "kept", 9, 6)
    write_other(folder, "chosen", 12, 3)
    with pytest.raises(BadInput, match="documents are asked elsewhere too: 3 of kept"):
        splits_of(params_for(folder, vault=("kept",)))
    with pytest.raises(BadInput, match="documents are asked elsewhere too: 6 of kept"):
        splits_of(params_for(folder, vault=("kept",), select_tasks=("chosen",)))


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"vault": ("likely",)}, "vault names likely"),
        ({"select_tasks": ("likely",)}, "select_tasks names likely"),
        ({"vault": ("choose",), "select_tasks": ("choose",)}, "vault names choose"),
        ({"vault": ("choose",), "vault_share": 0.5}, "both set"),
    ],
)
def test_one_task_has_one_use(folder: Path, more: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        params_for(folder, **more)


def test_a_vault_without_the_metric_is_refused_before_a_model_loads(folder: Path) -> None:
    with pytest.raises(BadInput, match="choose does not report"):
        splits_of(
            params_for(folder, tasks=("likely", "spell"), primary="spell/exact_match,x", vault=("choose",))
        )
