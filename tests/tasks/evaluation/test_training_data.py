"""Test items that the training data holds are counted, whatever the fields are called there."""

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.base.errors import BadInput
from tasks.evaluation.splits import splits_of
from tasks.evaluation.training_data import trained_on
from tasks.parameters.evaluation import EvaluateParams
from tests.support.tiny_world import write_world


def count(folder: Path, *patterns: object) -> dict[str, int]:
    params = EvaluateParams(tasks=("likely", "choose"), primary="likely/nll", include_path=str(folder))
    return trained_on(splits_of(params).test, [str(pattern) for pattern in patterns])


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write tasks whose documents are questions 0 + 5 to 3 + 5, three times each."""
    return write_world(tmp_path)


def test_without_files_nothing_is_looked_at(folder: Path) -> None:
    assert count(folder) == {}


@pytest.mark.parametrize(
    "row",
    [
        {"question": "2 + 5", "choices": ["none", "7", "2"], "answer": "7"},
        {"prompt": "2 + 5", "other": "none", "more": 3},
        {"messages": [{"role": "user", "content": " 2 + 5\n"}, {"role": "assistant", "content": "none"}]},
    ],
)
def test_an_item_occurs_where_a_row_has_all_its_texts(folder: Path, tmp_path: Path, row: Any) -> None:
    assert count(folder, write(tmp_path / "train.jsonl", row)) == {"likely": 3, "choose": 3}


@pytest.mark.parametrize(
    "row", [{"question": "2 + 5"}, {"question": "2 + 55", "x": "none"}, "2 + 5", 7, None]
)
def test_what_has_only_some_of_them_is_another(folder: Path, tmp_path: Path, row: Any) -> None:
    assert count(folder, write(tmp_path / "train.jsonl", row)) == {}


def test_patterns_name_several_files(folder: Path, tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", {"q": "1 + 5", "x": "none"})
    write(tmp_path / "b.jsonl", {"q": "2 + 5", "x": "none"})
    assert count(folder, tmp_path / "*.jsonl") == {"likely": 6, "choose": 6}


def test_files_that_cannot_be_read_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"there is no .*none.jsonl"):
        count(folder, tmp_path / "none.jsonl")
    (tmp_path / "weights.bin").write_bytes(b"\x80\x02")
    with pytest.raises(BadInput, match=r"weights.bin holds no JSON lines"):
        count(folder, tmp_path / "weights.bin")
