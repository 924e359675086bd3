"""The keys of params.yaml from the docstrings of its models, as rows, text or Markdown."""

import difflib
import re
from collections.abc import Iterator, Sequence
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import yaml
from pydantic.fields import FieldInfo

from tasks.base.errors import BadInput
from tasks.parameters.section import Section
from tasks.parameters.varying import VARYING

REQUIRED = "required"
VARIES = "; may vary"
FOOTNOTE = (
    "may vary: instead of one number, {gradient: [first, ..., last]} over the layers, "
    "or rules by tensor name, [{match: REGEX, value: x}, ..., {value: y}]"
)
WORDS = {str: "text", int: "whole number", float: "number", bool: "true or false", type(None): "null"}
LIMITS = {
    "gt": "> {:g}",
    "ge": "≥ {:g}",
    "lt": "< {:g}",
    "le": "≤ {:g}",
    "min_length": "at least {} long",
    "max_length": "at most {} long",
    "pattern": "matching `{}`",
}
"""pydantic's names of limits → words."""


class Key(NamedTuple):
    """A key of params.yaml."""

    name: str
    """With its sections: merge.lore.mu."""
    takes: str
    default: str
    """As YAML, or REQUIRED."""
    meaning: str


class SectionKeys(NamedTuple):
    """A section, or a section within one, with its own keys."""

    name: str
    meaning: str
    keys: list[Key]


def explain(params: type[Section], wanted: str | None = None) -> list[SectionKeys]:
    """Return all sections of a model, or the sections and keys whose name is or ends with `wanted`.

    Raises BadInput where there is none.
    """
    groups = list(_groups(params, ""))
    if wanted is None:
        return groups
    found = [
        group if f".{wanted}." in f".{group.name}." else group._replace(keys=_ending(group, wanted))
        for group in groups
    ]
    if any(group.keys for group in found):
        return [group for group in found if group.keys]
    names = [name for group in groups for name in (group.name, *(key.name for key in group.keys))]
    near = difflib.get_close_matches(wanted, names, n=1)
    remedy = f"did you mean {near[0]}?" if near else "loreline params lists them all"
    raise BadInput(wanted, "is neither a section nor a key of params.yaml", remedy)


def explained_text(groups: Sequence[SectionKeys]) -> str:
    """Return sections for a terminal: each key with its default, what it takes, and what it means."""
    blocks = []
    for group in groups:
        blocks.append(f"{group.name}: {group.meaning}")
        for key in group.keys:
            default = f"({REQUIRED})" if key.default == REQUIRED else f"= {key.default}"
            blocks.append(f"{key.name} {default}\n    {key.takes}\n    {key.meaning}")
    varies = any(key.takes.endswith(VARIES) for group in groups for key in group.keys)
    return "\n\n".join([*blocks, FOOTNOTE] if varies else blocks)


def explained_markdown(groups: Sequence[SectionKeys]) -> str:
    """Return sections as Markdown: for each a heading and a table."""
    return "\n\n".join("\n".join(_table(group)) for group in groups)


def _table(group: SectionKeys) -> Iterator[str]:
    yield f"{'###' if '.' in group.name else '##'} {group.name}\n\n{_escaped(group.meaning)}\n"
    yield "| key | takes | default | meaning |\n| --- | --- | --- | --- |"
    for key in group.keys:
        default = REQUIRED if key.default == REQUIRED else f"`{key.default}`"
        yield f"| `{key.name}` | {_escaped(key.takes)} | {default} | {_escaped(key.meaning)} |"


def _escaped(text: str) -> str:
    """Escape characters that Markdown reads as emphasis or the end of a cell, except in code."""
    return re.sub(
        r"`[^`]*`|[*_|]",
        lambda found: found[0].replace("|", r"\|") if found[0][0] == "`" else f"\\{found[0]}",
        text,
    )


def _ending(group: SectionKeys, wanted: str) -> list[Key]:
    return [key for key in group.keys if f".{key.name}".endswith(f".{wanted}")]


def _groups(model: type[Section], prefix: str) -> Iterator[SectionKeys]:
    """Yield a model's own keys first, then the sections in it."""
    keys, inner = [], []
    for name, field in model.model_fields.items():
        full, kind = prefix + (field.alias or name), field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            inner.append((full, kind))
        else:
            keys.append(Key(full, _takes(field), _default(field), _line(field.description)))
    if keys:
        yield SectionKeys(prefix.rstrip("."), _line(model.__doc__), keys)
    for full, section in inner:
        yield from _groups(section, f"{full}.")


def _line(text: str | None) -> str:
    return " ".join((text or "").split())


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return REQUIRED
    value = field.get_default(call_default_factory=True)
    text = yaml.safe_dump(list(value) if isinstance(value, tuple) else value, default_flow_style=True)
    return text.removesuffix("\n").removesuffix("\n...")


def _takes(field: FieldInfo) -> str:
    return _values(field.annotation, field.metadata) + (
        VARIES if _may_vary(field.annotation, field.metadata) else ""
    )


def _may_vary(annotation: Any, metadata: Sequence[Any] = ()) -> bool:
    return (
        VARYING in metadata
        or VARYING in getattr(annotation, "__metadata__", ())
        or any(map(_may_vary, get_args(annotation)))
    )


def _values(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """Return the values of a type in words, with their limits."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _values(args[0], annotation.__metadata__)
    if origin is Literal:
        return _or([str(value) for value in args])
    if origin in (Union, UnionType):
        return _or([_values(arg) for arg in args])
    if origin is tuple:
        return f"list of {_values(args[0])}" + _limits(metadata)
    if origin is dict:
        return f"mapping of {_values(args[0])} to {_values(args[1])}"
    return WORDS[annotation] + _limits(metadata)


def _limits(metadata: Sequence[Any]) -> str:
    flat = [one for each in metadata for one in (each.metadata if isinstance(each, FieldInfo) else [each])]
    limits = [
        words.format(limit)
        for one in flat
        for name, words in LIMITS.items()
        if (limit := getattr(one, name, None)) is not None
    ]
    return f" {' and '.join(limits)}" if limits else ""


def _or(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else words[0]
