"""The check of the documentation finds what is wrong, and nothing else."""

from pathlib import Path

import pytest

from docs.check import ROOT, commands, problems, wrong_command, wrong_name
from docs.generate import generated


def page(root: Path, text: str) -> list[str]:
    (root / "README.md").write_text(text)
    return problems(root)


@pytest.mark.parametrize(
    "text",
    [
        "[a heading](#two-words-and-code)\n\n## Two words, and `code`\n",
        "[elsewhere](https://example.org/x) and ![a picture](picture.png)",
        "```sh\nloreline merge a b --out c \\\n    --sweep merge.lam=1,2 && make test  # loreline nothing\n```",
        "```mermaid\nloreline -. event .-> flows\n```",
        "`merge.lore.mu`, `merge.json` and `loreline params merge`",
        "```\n# no heading, and output: loreline's\n```",
    ],
)
def test_what_is_right_is_left_alone(tmp_path: Path, text: str) -> None:
    (tmp_path / "picture.png").touch()
    assert page(tmp_path, text) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("see [it](docs/nowhere.md)", "README.md:1: docs/nowhere.md: no such file"),
        ("\nsee [it](#nothing)", "README.md:2: #nothing: no such heading"),
        ("over two\nlines [it\nis](nowhere.md)", "README.md:3: nowhere.md: no such file"),
        ("```sh\nloreline mrege a b\n```", "README.md:2: loreline has no mrege"),
        ("```sh\nX=1 loreline merge a \\\n  --outt b\n```", "README.md:2: loreline merge has no --outt"),
        ("`loreline run --set merge.lamm=1`", "README.md:1: merge.lamm: is neither a section nor a key"),
        ("`make nothing`", "README.md:1: make has no nothing"),
        ("the key `merge.lore.strength`", "README.md:1: merge.lore.strength: is neither a section nor a key"),
        ("the file `tasks/nothing.py`", "README.md:1: tasks/nothing.py: no such file"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, text: str, problem: str) -> None:
    (found,) = page(tmp_path, text)
    assert found.startswith(problem)


def test_a_page_that_no_page_links_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "lonely.md").touch()
    assert page(tmp_path, "# Title") == ["docs/lonely.md: no page links to it"]
    assert page(tmp_path, "[now it is](docs/lonely.md)") == []


def test_equal_headings_have_anchors_of_their_own(tmp_path: Path) -> None:
    assert page(tmp_path, "[second](#same-1)\n# Same\n# Same") == []


def test_a_line_of_shell_is_split_into_its_commands() -> None:
    found = list(commands("A=1 loreline serve & make ui && echo 'a && b' > file  # why"))
    assert found[:3] == [["loreline", "serve"], ["make", "ui"], ["echo", "a && b"]]


def test_options_before_the_command_and_names_alone_are_fine() -> None:
    assert wrong_command(["loreline", "--debug", "run", "--help"]) is None
    assert wrong_command(["make", "PYTHON=python3.12", "setup"]) is None
    assert wrong_command(["loreline"]) is None
    assert wrong_name("evaluate.tasks", ROOT) is None


def test_generated_pages_say_what_the_code_says() -> None:
    """`make docs-check` compares them with the files."""
    parameters, methods = generated().values()
    assert "| `merge.lore.mu` | number > 0; may vary | `1.05` |" in parameters
    assert "| `ties` | trim, elect sign, disjoint mean | a base and 1 or more checkpoints |" in methods
