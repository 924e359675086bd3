"""Tokenizers are told apart by the number of each token, not by how a release writes them."""

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.base.errors import BadInput
from tasks.checkpoints.vocabularies import added_tokens, vocabularies_differ

MODEL = {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}
PAIRS = {**MODEL, "merges": [["a", "b"]]}


def added(*tokens: tuple[int, str]) -> list[dict[str, Any]]:
    return [{"id": number, "content": token, "special": True} for number, token in tokens]


def differ(root: Path, one: Any, other: Any, name: str = "tokenizer.json") -> bool:
    paths = [root / side / name for side in ("one", "other")]
    for path, value in zip(paths, (one, other), strict=True):
        path.parent.mkdir(exist_ok=True)
        path.write_text(value if isinstance(value, str) else json.dumps(value))
    return vocabularies_differ(*paths)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"model": MODEL}, {"model": PAIRS}),
        ({"model": MODEL}, {"model": {**PAIRS, "byte_fallback": False, "unk_token": None}}),
        ({"model": MODEL}, {"model": MODEL, "truncation": {"max_length": 5}, "padding": {}}),
        ({"model": MODEL, "added_tokens": []}, {"model": MODEL, "added_tokens": added((3, "<x>"))}),
        (
            {"model": MODEL, "added_tokens": added((3, "<x>"))},
            {"model": MODEL, "added_tokens": added((3, "<x>"), (4, "<y>"))},
        ),
    ],
)
def test_the_same_numbers_are_the_same_vocabulary(tmp_path: Path, one: Any, other: Any) -> None:
    assert not differ(tmp_path, one, other)
    assert not differ(tmp_path, other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"model": MODEL}, {"model": {**MODEL, "merges": ["b a"]}}),
        ({"model": MODEL}, {"model": {**MODEL, "byte_fallback": True}}),
        ({"model": MODEL}, {"model": {**MODEL, "vocab": {"a": 1, "b": 0, "ab": 2}}}),
        (
            {"model": MODEL, "added_tokens": added((3, "<x>"))},
            {"model": MODEL, "added_tokens": added((3, "<y>"))},
        ),
        (
            {"model": MODEL, "added_tokens": added((3, "<x>"))},
            {"model": MODEL, "added_tokens": added((4, "<x>"))},
        ),
    ],
)
def test_another_number_is_another_vocabulary(tmp_path: Path, one: Any, other: Any) -> None:
    assert differ(tmp_path, one, other)


def test_files_that_are_not_tokenizer_json_count_byte_by_byte(tmp_path: Path) -> None:
    assert differ(tmp_path, "a b", "b a", "merges.txt")
    assert not differ(tmp_path, "a b", "a b", "merges.txt")


@pytest.mark.parametrize("token", ['{"content": "<x>"}', '{"id": 1e999, "content": "<x>"}', "3"])
def test_damaged_added_tokens_are_named(tmp_path: Path, token: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(f'{{"model": {json.dumps(MODEL)}, "added_tokens": [{token}]}}')
    with pytest.raises(BadInput, match=r"tokenizer\.json: has added_tokens without id"):
        added_tokens(path)
