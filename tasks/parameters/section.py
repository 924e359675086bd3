"""What every section of params.yaml is made of: a strict model, plain YAML, and errors of one sentence."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from tasks.base.errors import BadInput


class Section(BaseModel):
    """A section of params.yaml: immutable, and an unknown key is an error."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        serialize_by_alias=True,
        defer_build=True,  # a merge need not wait for the models of other stages
    )


SectionT = TypeVar("SectionT", bound=Section)


class _PlainLoader(yaml.SafeLoader):
    """Plain YAML only: an alias can expand without bound, so there are none."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuse aliases, compose everything else."""
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not allowed")
        return super().compose_node(parent, index)


def parse(section: type[SectionT], tree: Mapping[str, Any], where: str, prefix: str = "") -> SectionT:
    """Validate a plain tree, turning the first error into one sentence (BadInput)."""
    try:
        return section.model_validate(tree)
    except ValidationError as error:
        raise BadInput(f"{where}: {_sentence(section, error, prefix)}") from None


def load_yaml(
    path: Path,
    missing: str = "run loreline where params.yaml is, or name it with --params",
    holds: str = "sections (fetch, select, merge, ...)",
) -> dict[str, Any]:
    """Read a YAML mapping without aliases or tags (BadInput otherwise, saying what it `holds`)."""
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=_PlainLoader)
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file; {missing}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInput(f"{path}: not readable as plain YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise BadInput(f"{path}: must hold {holds}, not {type(tree).__name__}")
    return tree


def override(tree: dict[str, Any], setting: str) -> None:
    """Set `section.key=value` in a plain tree."""
    key, equals, text = setting.partition("=")
    if not equals or not all(key.split(".")):
        raise BadInput(f"--set {setting}: write it as section.key=value")
    try:
        value = yaml.load(text, Loader=_PlainLoader)
    except yaml.YAMLError:
        raise BadInput(f"--set {setting}: {text!r} is not a YAML value") from None
    *parents, leaf = key.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise BadInput(f"--set {setting}: {parent} is not a section")
    tree[leaf] = value


def _sentence(section: type[Section], error: ValidationError, prefix: str) -> str:
    errors = error.errors(include_url=False)
    # A misspelt key explains a missing one, not the other way round.
    first = next((found for found in errors if found["type"] == "extra_forbidden"), errors[0])
    key = prefix + ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        *parents, own = first["loc"]
        known, parent = _keys(section, tuple(parents)), prefix + ".".join(map(str, parents))
        return f"unknown key {key}; {_remedy(str(own), known, parent.rstrip('.'))}"
    if first["type"] == "missing":
        return f"{key} is missing; set it"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":  # ours; the value may be a secret
        return f"{key}: {message}"
    return f"{key}: {message[0].lower()}{message[1:]}, but it is {first['input']!r}"


def _remedy(own: str, known: list[str], parent: str) -> str:
    """Name the key that may be meant, else say where those of the section are to be seen."""
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
