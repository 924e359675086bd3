"""An item's text is what a model is asked, with the right answer behind it as lm-eval puts it."""

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.base.errors import BadInput
from tasks.base.passage import Passage
from tasks.evaluation.item_texts import item_texts
from tasks.evaluation.splits import calibrating_split
from tasks.parameters.evaluation import EvaluateParams
from tests.support.tiny_world import HEAD, TASKS, write_task

ITEMS = [
    {"question": "1 + 5", "answer": "6", "choices": ["none", "6"], "gold": 1},
    {"question": "2 + 5", "answer": "7", "choices": ["7", "2"], "gold": 0},
]


METRICS = {"spell": "exact_match", "likely": "nll", "choose": "acc"}


def texts(folder: Path, kind: str, **changed: str) -> list[Passage]:
    """Return the texts of a task of a kind over items that no test task has."""
    (folder.parent / "data" / "select.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ITEMS))
    lines = (HEAD.format(name="select") + TASKS[kind]).replace("items.jsonl", "select.jsonl").splitlines()
    own = [f"{key}: {changed[key]}" if (key := line.partition(":")[0]) in changed else line for line in lines]
    write_task(folder, "select", "").write_text("\n".join(own) + "\n")
    asked = params(folder, tasks=(kind,), primary=f"{kind}/{METRICS[kind]}", select_tasks=("select",))
    return item_texts(calibrating_split(asked, "fisher"))


def params(folder: Path, **given: Any) -> EvaluateParams:
    return EvaluateParams.model_validate({"include_path": str(folder), **given})


@pytest.mark.parametrize("kind", METRICS)
def test_the_right_answer_follows_the_question(kind: str, folder: Path) -> None:
    space, end = ("", "\n") if kind == "likely" else (" ", "")
    answers = [" 6\n", " 7\n"] if kind == "likely" else ["6", "7"]
    assert texts(folder, kind) == [
        Passage(f"1 + 5:{space}", answers[0]),
        Passage(f"2 + 5:{space}", answers[1]),
    ]
    assert [own.whole for own in texts(folder, kind)] == [f"1 + 5: 6{end}", f"2 + 5: 7{end}"]


@pytest.mark.parametrize(
    ("kind", "changed", "expected"),
    [
        ("choose", {"doc_to_target": "answer"}, ["1 + 5: 6", "2 + 5: 7"]),
        ("spell", {"doc_to_target": "choices"}, ["1 + 5: none", "2 + 5: 7"]),
        (
            "choose",
            {"doc_to_text": "gold", "doc_to_choice": "choices", "doc_to_target": "question"},
            ["6 1 + 5", "7 2 + 5"],
        ),
    ],
    ids=["the choice in words", "several right answers", "inputs to choose from, as in Winogrande"],
)
def test_tasks_that_put_it_otherwise(
    kind: str, changed: dict[str, str], expected: list[str], folder: Path
) -> None:
    assert [own.whole for own in texts(folder, kind, **changed)] == expected


def test_without_select_tasks_the_remedy_is_named(folder: Path) -> None:
    asked = params(folder, tasks=("spell",), primary="spell/exact_match")
    with pytest.raises(
        BadInput, match=r"merge.method: fisher .* set evaluate.select_tasks or merge.calibration"
    ):
        calibrating_split(asked, "fisher")


def test_test_items_are_not_measured_on(folder: Path) -> None:
    write_task(folder, "again", TASKS["spell"])
    asked = params(folder, tasks=("spell",), primary="spell/exact_match", select_tasks=("again",))
    with pytest.raises(BadInput, match="documents are asked elsewhere too: 12 of again"):
        calibrating_split(asked, "fisher")
