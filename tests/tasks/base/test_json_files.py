"""A checkpoint's JSON is an object in a regular file of a sensible size, or it is refused and named at once."""

import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.base.errors import BadInput
from tasks.base.json_files import MAX_JSON, read_json

TREES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(st.dictionaries(st.text(), TREES, max_size=5))
def test_an_object_is_read_as_it_was_written(tmp_path_factory: pytest.TempPathFactory, tree: object) -> None:
    path = tmp_path_factory.mktemp("json") / "config.json"
    path.write_text(json.dumps(tree), encoding="utf-8")
    assert read_json(path) == tree


@given(st.binary(max_size=60))
def test_whatever_else_it_holds_is_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.mktemp("json") / "config.json"
    path.write_bytes(content)
    try:
        expected = json.loads(content)
    except ValueError:
        expected = None
    if isinstance(expected, dict):
        assert read_json(path) == expected
    else:
        with pytest.raises(BadInput, match="config.json"):
            read_json(path)


@pytest.mark.parametrize(
    "content", [b"[" * 10_000, b'{"a": ' * 10_000, b"9" * 5000, b'{"a": ' + b"9" * 5000 + b"}", b"[1]", b""]
)
def test_depth_and_digits_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(BadInput, match="config.json"):
        read_json(tmp_path / "config.json")


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(BadInput, match="not a regular file"):
        read_json(tmp_path / "config.json")
    (tmp_path / "directory.json").mkdir()
    with pytest.raises(BadInput, match="not a regular file"):
        read_json(tmp_path / "directory.json")


def test_a_huge_file_is_refused_by_its_size(tmp_path: Path) -> None:
    (tmp_path / "config.json").touch()
    os.truncate(tmp_path / "config.json", 3 * 2**30)  # sparse
    begun = time.process_time()
    with pytest.raises(BadInput, match=f"over the limit of {MAX_JSON}"):
        read_json(tmp_path / "config.json")
    assert time.process_time() - begun < 0.5


@pytest.mark.parametrize("entry", [b"[],", b"0,"])
def test_what_would_take_gigabytes_once_parsed_is_refused_before_that(
    tmp_path: Path, entry: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_bytes(b'{"a": [' + entry * (2**24 + 1) + b"0]}")
    monkeypatch.setattr(json, "loads", None)
    with pytest.raises(BadInput, match="more entries than any model's"):
        read_json(tmp_path / "config.json")
