"""Calibration text is read from lines and JSON lines, spread evenly, and refused in a sentence."""

from pathlib import Path

import pytest

from tasks.base.errors import BadInput
from tasks.base.passage import Passage
from tasks.engine.calibration import CALIBRATION, read_texts, wants_items, write_texts
from tasks.parameters.merge import CalibrationParams, MergeParams


def fisher(file: Path | None = None, items: int = 128) -> MergeParams:
    calibration = CalibrationParams(file=str(file) if file else None, items=items)
    return MergeParams(method="fisher", calibration=calibration)


@pytest.mark.parametrize("name", ["texts.txt", "texts", "texts.jsonl"])
def test_a_line_is_a_document(name: str, tmp_path: Path) -> None:
    path, texts = tmp_path / name, ("one two", '{"no": json}', "drei — vier")
    if name.endswith("jsonl"):
        write_texts([Passage("", text) for text in texts], path)
    else:
        path.write_text('one two\n\n{"no": json}\r\ndrei — vier', encoding="utf-8")
    assert read_texts(fisher(path)) == tuple(Passage("", text) for text in texts)


def test_texts_with_newlines_survive_as_json_lines(tmp_path: Path) -> None:
    write_texts([Passage("p\n", "a\nb"), Passage("p", "\u2028"), Passage("", " c ")], tmp_path / CALIBRATION)
    # a blank one says nothing
    expected = (Passage("p\n", "a\nb"), Passage("", " c "))
    assert read_texts(fisher(), tmp_path / CALIBRATION) == expected


def test_a_prompt_is_kept_apart(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text('{"prompt": "1 + 5:", "text": " 6"}\n{"text": "hello", "id": 3}\n')
    assert read_texts(fisher(path)) == (Passage("1 + 5:", " 6"), Passage("", "hello"))


@pytest.mark.parametrize(
    ("items", "expected"), [(1, "0"), (3, "036"), (5, "02468"), (10, "0123456789"), (99, "0123456789")]
)
def test_items_are_spread_evenly(items: int, expected: str, tmp_path: Path) -> None:
    (tmp_path / "texts").write_text("\n".join("0123456789"))
    assert "".join(own.whole for own in read_texts(fisher(tmp_path / "texts", items))) == expected


def test_a_named_file_comes_before_the_select_items(tmp_path: Path) -> None:
    (tmp_path / "named").write_text("mine")
    write_texts([Passage("", "theirs")], tmp_path / CALIBRATION)
    assert read_texts(fisher(tmp_path / "named"), tmp_path / CALIBRATION) == (Passage("", "mine"),)
    assert wants_items(fisher())
    assert not wants_items(fisher(tmp_path / "named"))
    assert not wants_items(MergeParams(method="average"))


def test_methods_of_the_weights_alone_read_nothing(tmp_path: Path) -> None:
    params = MergeParams(method="average", calibration=CalibrationParams(file="/nowhere"))
    assert read_texts(params, tmp_path / "nowhere") == ()


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("gone", None, "gone: cannot be read as text .*; name a file in UTF-8"),
        ("binary", b"\xff\xfe\x00", "binary: cannot be read as text .*; name a file in UTF-8"),
        ("empty", b"", "empty: holds no text; name a file with one document a line"),
        ("blank.jsonl", b'{"text": " "}\n\n', "blank.jsonl: holds no text"),
        (
            "bad.jsonl",
            b'{"text": "a"}\n{"text": 1}\n',
            "bad.jsonl: line 2 is no JSON object with a text; write",
        ),
        ("worse.jsonl", b"hello\n", "worse.jsonl: line 1 is no JSON object with a text"),
        ("prompt.jsonl", b'{"text": "a", "prompt": 3}', "prompt.jsonl: line 1 is no JSON object with a text"),
        ("list.jsonl", b"[1]\n", "list.jsonl: line 1 is no JSON object with a text"),
        ("deep.jsonl", b"[" * 100_000, "deep.jsonl: line 1 is no JSON object with a text"),
    ],
)
def test_what_is_no_text_is_one_sentence(
    name: str, content: bytes | None, sentence: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match=sentence):
        read_texts(fisher(tmp_path / name))


def test_without_any_text_the_remedy_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"there is none; name a file with one document a line"):
        read_texts(fisher())
    with pytest.raises(
        BadInput, match=r"run loreline search, which writes that of evaluate.select_tasks, or"
    ):
        read_texts(fisher(), tmp_path / CALIBRATION)
