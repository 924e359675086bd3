"""Check the documentation: `make docs-check`.

Links and anchors lead somewhere, every page is linked, commands with their flags exist, so do parameters,
make's targets and files that are named, and generated pages are up to date.
"""

import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import typer

from docs.generate import generated
from flows.cli import app
from tasks.base.errors import BadInput
from tasks.parameters.explain import explain
from tasks.parameters.params import Params

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`]+)`")
HEADING = re.compile(r"#+ (.+)")
KEY = re.compile(r"(fetch|select|merge|evaluate|register|version|watch|retention)(\.[a-z_]+)+")
PLACE = re.compile(r"(docs|flows|loreline|tasks|tests|\.github|\.ci)/[\w./-]*")
RECORD = (".json", ".yaml", ".yml", ".db", ".log")
SEPARATORS = {"&&", "||", "|", ";", "&", ">", ">>", "2>", "<"}


class Page(NamedTuple):
    """A page, read once; every line with its number."""

    path: Path
    prose: list[tuple[int, str]]
    """Without its blocks of code."""
    code: list[tuple[int, str]]
    """Of the blocks, diagrams aside; a command that goes on in the next line is one line."""


def pages(root: Path) -> list[Page]:
    """Read every page of a repository."""
    places = [*root.glob("*.md"), *(root / ".github").rglob("*.md"), *(root / "docs").rglob("*.md")]
    return [read(path) for path in sorted(places)]


def read(path: Path) -> Page:
    """Tell prose and fenced code apart."""
    prose, code, fence = list[tuple[int, str]](), list[tuple[int, str]](), ""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if mark := re.match(r"\s*```(\w*)", line):
            fence = "" if fence else mark[1] or "text"
        elif not fence:
            prose.append((number, line))
        elif code and code[-1][1].endswith("\\"):
            code[-1] = (code[-1][0], code[-1][1][:-1] + line)
        elif fence != "mermaid":
            code.append((number, line))
    return Page(path, prose, code)


def problems(root: Path) -> list[str]:
    """Return a sentence for everything that is wrong with the pages of a repository."""
    found = pages(root)
    wrong = [
        f"{page.path.relative_to(root)}:{number}: {problem}"
        for page in found
        for number, problem in [*_in_prose(page, root), *_in_code(page)]
    ]
    linked = {
        (page.path.parent / target.partition("#")[0]).resolve()
        for page in found
        for _, line in page.prose
        for target in LINK.findall(line)
    }
    lonely = [page.path for page in found if page.path.is_relative_to(root / "docs")]
    return wrong + [f"{path.relative_to(root)}: no page links to it" for path in lonely if path not in linked]


def _in_prose(page: Page, root: Path) -> Iterator[tuple[int, str]]:
    for number, line in page.prose:
        for target in LINK.findall(CODE.sub("", line)):
            if problem := wrong_link(page.path, target):
                yield number, problem
        for text in CODE.findall(line):
            if problem := wrong_name(text, root) or wrong_command(text.split()):
                yield number, problem


def _in_code(page: Page) -> Iterator[tuple[int, str]]:
    for number, line in page.code:
        for command in commands(line):
            if problem := wrong_command(command):
                yield number, problem


def wrong_link(page: Path, target: str) -> str | None:
    """Say what is wrong with a link; those out of the repository are not followed."""
    if re.match(r"[a-z]+:", target):
        return None
    name, _, anchor = target.partition("#")
    place = page.parent / name if name else page
    if not place.exists():
        return f"{target}: no such file"
    if anchor and anchor not in anchors(place):
        return f"{target}: no such heading"
    return None


@cache
def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub makes of a page's headings."""
    found = set[str]()
    for _, line in read(page).prose:
        if heading := HEADING.fullmatch(line.strip()):
            slug = re.sub(r"[^\w\- ]", "", heading[1].lower()).replace(" ", "-")
            same = sum(1 for other in found if re.fullmatch(rf"{re.escape(slug)}(-\d+)?", other))
            found.add(f"{slug}-{same}" if same else slug)
    return found


def wrong_name(text: str, root: Path) -> str | None:
    """Say whether a parameter or a file that prose names is not there."""
    if KEY.fullmatch(text) and not text.endswith(RECORD):
        return wrong_key(text)
    if PLACE.fullmatch(text) and not (root / text).exists():
        return f"{text}: no such file"
    return None


def wrong_key(key: str) -> str | None:
    """Say so when params.yaml has neither such a key nor such a section."""
    try:
        explain(Params, key)
    except BadInput as error:
        return str(error)
    return None


def commands(line: str) -> Iterator[list[str]]:
    """Split a line of shell into its commands, without comments and leading variables."""
    try:
        words = shlex.split(line, comments=True)
    except ValueError:  # output, with a quote
        return
    command: list[str] = []
    for word in [*words, ";"]:
        if word in SEPARATORS:
            yield command
            command = []
        elif command or not re.match(r"\$$|\w+=", word):
            command.append(word)


def wrong_command(words: Sequence[str]) -> str | None:
    """Say what is wrong with a command of Loreline's or make's: its name, a flag, or a key that it sets."""
    program, *rest = words or [""]
    name = next((word for word in rest if not word.startswith("-") and "=" not in word), None)
    if program not in ("loreline", "make") or name is None:
        return None
    if name not in (targets() if program == "make" else flags()):
        return f"{program} has no {name}"
    for word, following in zip(rest, [*rest[1:], ""], strict=True):
        flag, _, value = word.partition("=")
        if program == "loreline" and flag.startswith("-") and flag not in flags()[name]:
            return f"loreline {name} has no {flag}"
        if flag in ("--set", "--sweep") and (wrong := wrong_key((value or following).partition("=")[0])):
            return wrong
    return None


@cache
def flags() -> dict[str, set[str]]:
    """Return the commands and what each takes, with what goes before any of them."""
    group: Any = typer.main.get_command(app)
    common = {flag for option in group.params for flag in option.opts} | {"--help"}
    return {
        name: common | {flag for option in command.params for flag in (*option.opts, *option.secondary_opts)}
        for name, command in group.commands.items()
    }


@cache
def targets() -> set[str]:
    """Return what make can make."""
    return set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def main() -> int:
    """Print every problem, and return how the check went."""
    found = problems(ROOT)
    for path, text in generated().items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            found.append(f"{path.relative_to(ROOT)}: is out of date; run make docs")
    print("\n".join(found) or "documentation: links, commands, names and generated pages are right")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
