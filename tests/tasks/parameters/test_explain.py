"""Every key of params.yaml is explained: with what it takes, its default and its meaning."""

from typing import Any

import pytest
import yaml

from tasks.base.errors import BadInput
from tasks.parameters.explain import REQUIRED, Key, explain, explained_markdown, explained_text
from tasks.parameters.params import Params
from tasks.parameters.section import Section

ALL = {key.name: key for group in explain(Params) for key in group.keys}


def leaves(
    schema: dict[str, Any], node: dict[str, Any], prefix: str = ""
) -> list[tuple[str, dict[str, Any]]]:
    """Walk pydantic's JSON schema, which knows nothing of ours: every key that holds no section."""
    found = []
    for name, below in node["properties"].items():
        reference = below.get("$ref")
        if reference:
            found += leaves(schema, schema["$defs"][reference.rpartition("/")[2]], f"{prefix}{name}.")
        else:
            found.append((prefix + name, below))
    return found


SCHEMA = dict(leaves(Params.model_json_schema(), Params.model_json_schema()))


def test_every_key_is_there_once_with_its_meaning() -> None:
    names = [key.name for group in explain(Params) for key in group.keys]
    assert sorted(names) == sorted(SCHEMA)
    assert all(key.meaning for key in ALL.values())
    assert all(group.meaning for group in explain(Params))


@pytest.mark.parametrize("name", SCHEMA)
def test_a_default_is_what_the_file_would_hold(name: str) -> None:
    if "default" in SCHEMA[name]:
        assert yaml.safe_load(ALL[name].default) == SCHEMA[name]["default"]
    else:
        assert ALL[name].default in (REQUIRED, "{}")


def text_of(name: str) -> str:
    return ALL[name].takes


def test_choices_limits_and_lists_are_said_in_words() -> None:
    assert text_of("merge.lore.combine") == "sum, mean or ties"
    assert text_of("merge.lore.rank_ratio") == "number > 0 and ≤ 1; may vary"
    assert text_of("merge.lore.anchor") == "mean or whole number"
    assert text_of("merge.lore.passes") == "whole number ≥ 1 or null"
    assert text_of("select.steps") == "list of whole number ≥ 0"
    assert text_of("evaluate.tasks") == "list of text at least 1 long"
    assert text_of("evaluate.margins") == "mapping of text to number ≥ 0"
    assert text_of("register.name") == "text at most 250 long and matching `^[^/:]+$`"
    assert text_of("version.push") == "true or false"


@pytest.mark.parametrize("name", SCHEMA)
def test_exactly_the_numbers_that_take_rules_are_said_to_vary(name: str) -> None:
    assert text_of(name).endswith("; may vary") == ("'gradient'" in repr(SCHEMA[name]))


def test_a_section_a_key_or_the_end_of_its_name_is_enough() -> None:
    assert [group.name for group in explain(Params, "merge")][:3] == ["merge", "merge.lore", "merge.ema"]
    assert [group.name for group in explain(Params, "lore")] == ["merge.lore"]
    assert [key.name for group in explain(Params, "merge.lore.mu") for key in group.keys] == ["merge.lore.mu"]
    both = [key.name for group in explain(Params, "density") for key in group.keys]
    assert both == ["merge.ties.density", "merge.breadcrumbs.density"]


@pytest.mark.parametrize(
    ("wanted", "remedy"),
    [("merge.lore.muu", "did you mean merge.lore.mu?"), ("", "loreline params lists them all"), ("§", "lists them all")],
)  # fmt: skip
def test_an_unknown_name_is_one_sentence_with_a_remedy(wanted: str, remedy: str) -> None:
    with pytest.raises(BadInput, match="is neither a section nor a key") as caught:
        explain(Params, wanted)
    assert remedy in str(caught.value)


def test_text_explains_what_varying_means_where_something_does() -> None:
    assert "gradient" in explained_text(explain(Params, "merge.lore.mu"))
    assert "gradient" not in explained_text(explain(Params, "select"))


def test_markdown_cells_hold_what_was_said() -> None:
    class Odd(Section):
        """A section with *stars*."""

        a_b: str = "x"
        """Either a|b or `c|d_*`."""

    class All(Section):
        """All."""

        odd: Odd = Odd()

    assert explain(All)[0].keys == [Key("odd.a_b", "text", "x", "Either a|b or `c|d_*`.")]
    page = explained_markdown(explain(All))
    assert "## odd\n\nA section with \\*stars\\*." in page
    assert page.splitlines()[-1] == "| `odd.a_b` | text | `x` | Either a\\|b or `c\\|d_*`. |"
