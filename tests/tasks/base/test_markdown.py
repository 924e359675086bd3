"""Whatever a text holds, what is shown of it is one short line that controls nothing."""

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.base.errors import LONGEST, BadInput, one_line
from tasks.base.markdown import in_markdown

HOSTILE = ["\x1b[31mred", "a\x00b", "a\rb", "a\nb", "\u202eabc", "\u2028", "\ud800", "\x9b31m", "\u200b"]


@given(st.text(st.characters(), max_size=1200))
def test_it_is_one_line_of_characters_that_are_seen(text: str) -> None:
    shown = one_line(text)
    assert len(shown.splitlines()) <= 1
    assert not {unicodedata.category(character) for character in shown} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    shown.encode()


@given(st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), max_size=200))
def test_an_ordinary_text_stays_as_it_is(text: str) -> None:
    assert one_line(text) == text


def test_of_a_long_one_both_ends_stay() -> None:
    shown = one_line("first" + "x" * 10**6 + "last")
    assert len(shown) <= LONGEST
    assert shown.startswith("first")
    assert shown.endswith("last")


@pytest.mark.parametrize("text", HOSTILE)
def test_an_error_is_one_harmless_line(text: str) -> None:
    error = BadInput(text, f"tensor {text} differs", "fetch it again")
    for told in (str(error), error.told):
        assert told == one_line(told, 10**6)
        assert told.endswith("fetch it again")


def test_an_error_stays_short() -> None:
    error = BadInput("n" * 10**6, "m" * 10**6, "fetch it again")
    assert len(str(error)) < 3 * LONGEST


@given(st.text(st.sampled_from("a<>&|`[]()!*\n\\\x1b"), max_size=40))
def test_nothing_opens_on_a_markdown_page(text: str) -> None:
    """Checked by a Markdown parser of its own, which lets HTML through."""
    from markdown_it import MarkdownIt

    page = MarkdownIt("commonmark", {"html": True}).enable("table")
    shown = page.render(f"| name |\n| --- |\n| x{in_markdown(text)}x |\n\n- x{in_markdown(text)}x\n")
    assert shown.count("<td>") == 1
    assert not {"<a", "<img", "<code"} & set(re.findall("<[a-z]+", shown))
