"""Hostile inputs: trees that are almost right, odd scalars, and files in which bytes were changed."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from hypothesis import strategies as st

ODD_WORDS = [
    "", "null", "~", "2000-13-45", "2001-02-30 25:61:61", "1:1:1.5", "1" + ":59" * 400, "0x" + "f" * 5000,
    "9" * 5000, "9e999999", ".inf", "-.inf", ".nan", "1_0", "0b_", "0x_", "0o", "=", "<<", "*a", "&a [1]",
    "!!int ''", "!!float ''", "!!bool x", "!!timestamp x", "!!python/name:os.system", "!x y", "{", "[", "- ",
    "[" * 3000, "{a: " * 3000, "{? [1] : 2}", "\x00", "\ud800", "\u202e", "\x1b[31m", "a\nb", "..", "../x",
    "/etc/passwd", "hf://a/b", "s3://u:p@b/x?y", "runs/x", "(", "(" * 3000, "a{99999999999}", "(a+)+$", "(?i)a",
    "\\1", "(?P<a>x", "t/nll", "auto", "lore", "true", "x" * 10_000,
]  # fmt: skip
ODD_NUMBERS = [
    0,
    -1,
    1,
    2**31,
    2**63,
    2**64,
    -(2**63),
    10**99,
    1e308,
    -0.0,
    5e-324,
    float("inf"),
    float("nan"),
]

words = st.sampled_from(ODD_WORDS) | st.text(max_size=12)
scalars = st.none() | st.booleans() | st.sampled_from(ODD_NUMBERS) | st.integers() | st.floats() | words


def trees(keys: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    """Return trees whose keys are often those that a reader looks for."""
    return st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
        max_leaves=12,
    )


def near(right: Mapping[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Return a mapping in which some values, at any depth, are something else, missing, or added."""
    keys = st.sampled_from(sorted(_keys(right))) | st.text(max_size=4)
    return _changed(dict(right), trees(keys), keys)


def _changed(
    right: Any, wrong: st.SearchStrategy[Any], keys: st.SearchStrategy[str]
) -> st.SearchStrategy[Any]:
    if isinstance(right, dict) and right:
        whole = st.fixed_dictionaries({key: _changed(value, wrong, keys) for key, value in right.items()})
        added = whole.flatmap(lambda made: st.builds(_with, st.just(made), keys, wrong))
        return _mostly(whole, added)
    if isinstance(right, list) and right:
        return _mostly(st.tuples(*(_changed(value, wrong, keys) for value in right)).map(list), wrong)
    return _mostly(st.just(right), wrong)


def _mostly(right: st.SearchStrategy[Any], wrong: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return what is right eleven times in twelve: what lies behind the first check is to be reached, too."""
    return st.integers(0, 11).flatmap(lambda drawn: wrong if drawn == 7 else right)


def _with(made: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    return {**made, key: value}


def _keys(tree: Any) -> set[str]:
    inner = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    own = set(tree) if isinstance(tree, dict) else set()
    return own.union(*map(_keys, inner))


def damaged(content: bytes) -> st.SearchStrategy[bytes]:
    """Return a content that was cut, in which bytes were changed, or into which some were put."""
    place, piece = st.integers(0, len(content)), st.binary(max_size=6) | st.sampled_from(PIECES)
    return st.builds(lambda at, end, new: content[:at] + new + content[end:], place, place, piece)


PIECES = [
    b"[" * 2000,
    b"9" * 4500,
    b'"',
    b"{}",
    b"null,",
    b"1e999",
    b"\\ud800",
    b"\xff",
    b"\x00" * 40,
    b",,",
    b"-1",
]


def as_json(tree: object) -> bytes:
    return json.dumps(tree).encode("utf-8", "surrogatepass")


Put = Callable[[str, bytes], None]
"""Write a file of this name into the directory that is read."""
