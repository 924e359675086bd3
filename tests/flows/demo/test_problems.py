"""The demo's word problems are right, distinct, and as hard in one split as in another."""

import json
import re
from pathlib import Path
from statistics import mean

import pytest

from flows.demo.problems import Problem, make_splits, write_data, write_tasks


@pytest.fixture(scope="module")
def splits():
    return make_splits(0, train=5000, select=500, test=1500)


def numbers_in(question: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", question)]


def solve(question: str) -> int:
    """Read a question as a person would, without the generator's templates."""
    first, second = numbers_in(question)
    if "Left?" in question:
        return first - second
    return first * second if re.search(r"\d (bags|boxes|rows) of \d", question) else first + second


def test_every_answer_is_right_once_its_digits_are_turned_round(splits):
    for problem in splits.train + splits.select + splits.test:
        assert int(problem.answer[::-1]) == solve(problem.question) >= 0, problem


def test_no_question_is_asked_twice_in_or_across_splits(splits):
    questions = [problem.question for problem in splits.train + splits.select + splits.test]
    assert len(set(questions)) == len(questions) == 7000


def test_a_seed_gives_the_same_problems_and_another_seed_others(splits):
    assert make_splits(0, train=5000, select=500, test=1500) == splits
    assert make_splits(1, train=5000, select=500, test=1500).test != splits.test


def test_what_is_held_out_is_as_hard_as_what_is_trained_on():
    """Split before shuffling, select and test would be the early draws, whose numbers are smaller by 1.5."""
    splits = make_splits(1, train=40_000, select=500, test=1500)
    held_out, train = (
        mean(max(numbers_in(problem.question)) for problem in part)
        for part in (splits.select + splits.test, splits.train)
    )
    assert held_out == pytest.approx(train, abs=0.8)


def test_what_is_chosen_on_is_no_test_item(tmp_path: Path, splits):
    write_tasks(tmp_path)
    files = {path.stem: path.read_text() for path in tmp_path.iterdir()}
    assert "select.jsonl" in files["word_problems_select"]
    assert all("test.jsonl" in text for name, text in files.items() if name != "word_problems_select")
    assert not {p.question for p in splits.select} & {p.question for p in splits.test}


def test_the_files_hold_the_splits_in_order(tmp_path: Path, splits):
    write_data(splits, tmp_path)
    for name, problems in (("select", splits.select), ("test", splits.test)):
        rows = (tmp_path / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        assert [Problem(**json.loads(row)) for row in rows] == problems
