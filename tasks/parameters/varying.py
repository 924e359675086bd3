"""Numbers that vary over a model: by tensor name (rules) or from the first layer to the last (a gradient).

Where a field is declared `float` and annotated VARYING, a file may hold a number,

    {gradient: [a, b, ...]}                                    evenly spaced knots, linear in between
    [{match: REGEX, value: x}, ..., {value: y}]                the first rule found in the tensor's name

and x or y may be a gradient; no match: every tensor. Bounds hold for each number. Methods see numbers only,
because `resolve` comes first; a tensor that no rule matches has the parameter's default (a weight: 1).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

ModelT = TypeVar("ModelT", bound=BaseModel)
Bounded: TypeAlias = Callable[[Any], float]
"""Validates one number against the field's bounds."""


@dataclass(frozen=True)
class Gradient:
    """A value that runs through evenly spaced knots, from the first layer to the last."""

    knots: tuple[float, ...]

    def at(self, tensor: str, position: float) -> float:
        """Interpolate between the knots around `position`."""
        scaled = position * (len(self.knots) - 1)
        below = int(scaled)
        low, high = self.knots[below], self.knots[min(below + 1, len(self.knots) - 1)]
        value = (1 - (scaled - below)) * low + (scaled - below) * high
        # Rounding must not leave the interval of the two knots: bounds on knots are then bounds on values.
        return min(max(value, min(low, high)), max(low, high))


@dataclass(frozen=True)
class Rule:
    """A value for the tensors whose name contains the regular expression; None: for all."""

    match: str | None
    value: float | Gradient


@dataclass(frozen=True)
class Rules:
    """Rules in order, of which the first that matches decides."""

    rules: tuple[Rule, ...]

    def at(self, tensor: str, position: float) -> float | None:
        """Return the value for a tensor, or None where no rule matches."""
        for rule in self.rules:
            if rule.match is None or re.search(rule.match, tensor):
                return rule.value.at(tensor, position) if isinstance(rule.value, Gradient) else rule.value
        return None


def varies(value: object) -> bool:
    """Tell whether a parameter is other than one number for every tensor."""
    return isinstance(value, Gradient | Rules)


def resolve(section: ModelT, tensor: str, position: float) -> ModelT:
    """Return the parameters that hold for one tensor, plain numbers; `section` itself if nothing varies.

    `position`: where the tensor lies in its model, 0 (first layer) to 1 (last).
    """
    fields = type(section).model_fields
    changed = {
        key: new
        for key, value in section
        if (new := _resolved(value, fields[key].default, tensor, position)) is not value
    }
    return section.model_copy(update=changed) if changed else section


def _resolved(value: Any, default: Any, tensor: str, position: float) -> Any:
    if isinstance(value, Gradient | Rules):
        found = value.at(tensor, position)
        return default if found is None else found
    if isinstance(value, BaseModel):
        return resolve(value, tensor, position)
    if isinstance(value, tuple) and any(varies(entry) for entry in value):
        unmatched = default if isinstance(default, float) else 1.0
        return tuple(_resolved(entry, unmatched, tensor, position) for entry in value)
    return value


class _Varying:
    """Annotation of a float that may vary; it is written back as it was read."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_wrap_validator_function(
            _read, handler(source), serialization=core_schema.plain_serializer_function_ser_schema(_plain)
        )

    def __get_pydantic_json_schema__(
        self, schema: core_schema.WrapValidatorFunctionSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return _json_schema(handler(schema["schema"]))


VARYING = _Varying()


def _read(tree: Any, number: Bounded) -> float | Gradient | Rules:
    tree = _plain(tree)
    if isinstance(tree, list | tuple):
        if not tree:
            raise ValueError("holds no rule", "write [{match: REGEX, value: x}, ..., {value: y}]")
        return Rules(tuple(_rule(entry, number) for entry in tree))
    return _value(tree, number)


def _rule(tree: Any, number: Bounded) -> Rule:
    if not isinstance(tree, Mapping) or not {"value"} <= set(tree) <= {"match", "value"}:
        raise ValueError(
            f"a rule is {{match: REGEX, value: x}}, or {{value: x}} for the rest, not {tree!r}", "correct it"
        )
    return Rule(_regex(tree["match"]) if "match" in tree else None, _value(tree["value"], number))


def _regex(text: Any) -> str:
    if not isinstance(text, str):
        raise ValueError(f"match is a regular expression, not {text!r}", "quote it")
    try:
        re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"match {text!r} is no regular expression: {error}", "correct it") from None
    return text


def _value(tree: Any, number: Bounded) -> float | Gradient:
    if not isinstance(tree, Mapping):
        return number(tree)
    knots = tree.get("gradient")
    if set(tree) != {"gradient"} or not isinstance(knots, list | tuple) or len(knots) < 2:
        raise ValueError(
            "a mapping is a gradient, {gradient: [first, ..., last]} with two numbers or more, "
            f"and rules are a list; not {tree!r}",
            "correct it",
        )
    return Gradient(tuple(number(knot) for knot in knots))


def _plain(value: Any) -> Any:
    """Return a value as YAML would hold it."""
    if isinstance(value, Gradient):
        return {"gradient": list(value.knots)}
    if isinstance(value, Rules):
        return [
            ({} if rule.match is None else {"match": rule.match}) | {"value": _plain(rule.value)}
            for rule in value.rules
        ]
    return value


def _json_schema(number: JsonSchemaValue) -> JsonSchemaValue:
    knots = {"type": "array", "items": number, "minItems": 2}
    gradient = _object({"gradient": knots}, "gradient")
    rule = _object({"match": {"type": "string", "format": "regex"}, "value": _any(number, gradient)}, "value")
    return _any(number, gradient, {"type": "array", "items": rule, "minItems": 1})


def _any(*schemas: JsonSchemaValue) -> JsonSchemaValue:
    return {"anyOf": list(schemas)}


def _object(properties: JsonSchemaValue, required: str) -> JsonSchemaValue:
    return {"type": "object", "properties": properties, "required": [required], "additionalProperties": False}
