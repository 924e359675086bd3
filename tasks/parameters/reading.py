"""Reading parameters: plain YAML, overrides, and the first error as BadInput."""

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from tasks.base.errors import BadInput
from tasks.parameters.section import Section

LONGEST_YAML = 2**16
"""Characters of a parameter file or a recipe: what is longer is another file, and takes seconds to parse."""
LONGEST_NUMBER = 100
"""Characters of a number."""
DEEPEST_KEY, DEEPEST_FLOW = 10, 50
"""Parts of a key, of which the deepest has four, and brackets in brackets."""
KINDS: Mapping[type, str] = {dict: "a mapping", list: "a list"}
NUMBER_TAGS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
SectionT = TypeVar("SectionT", bound=Section)


class _PlainLoader(yaml.SafeLoader):
    """A YAML loader without aliases, which can expand without bound, and without tags."""

    def fetch_flow_collection_start(self, token: type[yaml.Token]) -> None:
        """Refuse depth before it is scanned, which takes time in proportion to its square."""
        if self.flow_level >= DEEPEST_FLOW:
            raise yaml.YAMLError(f"brackets are nested deeper than {DEEPEST_FLOW}")
        super().fetch_flow_collection_start(token)

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuse aliases, tags and endless numbers, compose everything else."""
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not allowed")
        if getattr(self.peek_event(), "tag", None) is not None:  # type: ignore[no-untyped-call]
            raise yaml.YAMLError("tags (!name) are not allowed")
        node = super().compose_node(parent, index)
        if node and node.tag in NUMBER_TAGS and len(node.value) > LONGEST_NUMBER:
            raise yaml.YAMLError(f"a number of {len(node.value)} characters is too long")
        return node


def plain_value(text: str) -> Any:
    """Parse plain YAML; raises ValueError, in words for people, for what is none."""
    if len(text) > LONGEST_YAML:
        raise ValueError(f"longer than {LONGEST_YAML} characters")
    try:
        return yaml.load(text, Loader=_PlainLoader)
    except yaml.MarkedYAMLError as error:  # its text would quote the line, which may hold a secret
        mark = error.problem_mark
        place = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ValueError(f"{error.problem}{place}") from None
    except (ValueError, RecursionError, yaml.YAMLError) as error:  # ValueError: a date that is none
        raise ValueError(" ".join(str(error).split())) from None


def parse(section: type[SectionT], tree: Mapping[str, Any], where: str, prefix: str = "") -> SectionT:
    """Validate a plain tree; raises BadInput for its first error."""
    try:
        return section.model_validate(tree)
    except ValidationError as error:
        raise _error(section, error, where, prefix) from None


def load_yaml(
    path: Path,
    missing: str = "run loreline where params.yaml is, or name it with --params",
    holds: str = "sections (fetch, select, merge, ...)",
) -> dict[str, Any]:
    """Read a YAML mapping without aliases or tags (else BadInput, whose text has `missing` and `holds`)."""
    try:
        with path.open(encoding="utf-8") as file:
            tree = plain_value(file.read(LONGEST_YAML + 1))
    except FileNotFoundError:
        raise BadInput(path, "no such file", missing) from None
    except (OSError, ValueError) as error:
        raise BadInput(path, f"not readable as plain YAML ({error})", "correct it") from None
    if not isinstance(tree, dict):
        raise BadInput(path, f"must hold {holds}, not {type(tree).__name__}", "correct it")
    return tree


def override(tree: dict[str, Any], setting: str) -> None:
    """Set `section.key=value` in a plain tree."""
    key, equals, text = setting.partition("=")
    *parents, leaf = key.split(".")
    where = f"--set {key_of_setting(setting)}"
    if not equals or not all([*parents, leaf]) or len(parents) >= DEEPEST_KEY:
        raise BadInput(where, "is not a setting", "write it as section.key=value")
    try:
        value = plain_value(text)
    except ValueError:  # its text has the value in it
        raise BadInput(where, "what follows = is not a YAML value", "quote it") from None
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise BadInput(where, f"{parent} is not a section", "name a key of a section")
    tree[leaf] = value


def placed(tree: dict[str, Any], keys: Sequence[str], value: Any) -> dict[str, Any]:
    """Return a plain tree with a value at a path of keys; the tree itself stays as it is."""
    key, *rest = keys
    below = tree.get(key)
    return {**tree, key: placed(below if isinstance(below, dict) else {}, rest, value) if rest else value}


def key_of_setting(setting: str) -> str:
    """Return the key that `section.key=value` begins with: the value may be a secret."""
    return re.match(r"[\w.-]*", setting)[0]  # type: ignore[index]


def _error(section: type[Section], error: ValidationError, where: str, prefix: str) -> BadInput:
    errors = error.errors(include_url=False)
    # A misspelt key explains a missing one, not the other way round.
    first = next((found for found in errors if found["type"] == "extra_forbidden"), errors[0])
    written = (str(part) for part in first["loc"])
    key = prefix + ".".join(part for part in written if not part.startswith("<"))  # a union's tag is no key
    if first["type"] == "extra_forbidden":
        *parents, own = first["loc"]
        known, parent = _keys(section, tuple(parents)), prefix + ".".join(map(str, parents))
        return BadInput(where, f"unknown key {key}", _remedy(str(own), known, parent.rstrip(".")))
    if first["type"] == "missing":
        return BadInput(where, f"{key} is missing", "set it")
    if first["type"] == "value_error":  # ours: problem and remedy; the value may be a secret
        problem, remedy = first["ctx"]["error"].args
        named = f"{key.rstrip('.')}: " if key else ""
        return BadInput(where, f"{named}{problem}", remedy)
    message, given = first["msg"], first["input"]
    # What is in a mapping or a list where none belongs may be a secret.
    told = KINDS.get(type(given)) or repr(given)
    return BadInput(where, f"{key}: {message[0].lower()}{message[1:]}, but it is {told}", "correct it")


def _remedy(own: str, known: list[str], parent: str) -> str:
    """Return the key that may be meant, else where the section's keys are listed."""
    if near := difflib.get_close_matches(own, known, n=1):
        return f"did you mean {near[0]}?"
    if not known:
        return "remove it"
    return f"see loreline params {parent}" if parent else f"the keys are {', '.join(known)}"


def _keys(section: type[Section], loc: tuple[int | str, ...]) -> list[str]:
    for part in loc:
        field = _fields(section).get(str(part))
        if field is None or not (isinstance(field, type) and issubclass(field, Section)):
            return []
        section = field
    return list(_fields(section))


def _fields(section: type[Section]) -> dict[str, Any]:
    return {field.alias or name: field.annotation for name, field in section.model_fields.items()}
