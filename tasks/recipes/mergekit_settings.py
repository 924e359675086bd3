"""mergekit's parameter settings as values that vary over tensors (tasks/parameters/varying.py).

A setting is a scalar, a gradient over the layers (a list of scalars) or conditions (a list of
{filter, value}). It is looked up from the most specific scope (a model's) to the file's; a scope none of
whose filters occurs in the tensor's name passes on to the next. Tensors outside the layers take a gradient's
first value.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tasks.base.errors import BadInput

Parameters = Mapping[str, Any]
Setting = Any
"""A number, a gradient or a list of rules, as a recipe of ours would hold it."""

OUTSIDE = r"^(?!(?:.*\.)?\d+(?:\.|$))"
"""Start of a regular expression for names without a layer's number."""


class Scope(NamedTuple):
    """Parameters, and where in the file they are."""

    where: str
    parameters: Parameters


class _Condition(NamedTuple):
    filter: str | None
    values: list[float]
    """One number, or the knots of a gradient."""


def setting(key: str, scopes: Sequence[Scope], default: float | None = None) -> Setting:
    """Translate a parameter, scopes from the most specific on.

    Raises BadInput for what is malformed, and where there is neither a value for every tensor nor a default.
    """
    conditions: list[_Condition] = []
    for scope in scopes:
        if key in scope.parameters:
            conditions += _conditions(scope.parameters[key], f"{scope.where}.{key}")
    conditions += [_Condition(None, [default])] if default is not None else []
    last = next((place for place, found in enumerate(conditions) if found.filter is None), None)
    if last is None:
        problem = "leaves out the tensors that no filter matches" if conditions else "is missing"
        raise BadInput(f"{scopes[0].where}.{key}", problem, f"add {key}: or a last - value:")
    rules = [rule for condition in conditions[: last + 1] for rule in _rules(condition)]
    return rules[0]["value"] if len(rules) == 1 else rules


def flag(key: str, scopes: Sequence[Scope], default: bool) -> bool:
    """Read a switch, scopes from the most specific on; one that varies is refused."""
    for scope in scopes:
        if key in scope.parameters:
            value = scope.parameters[key]
            if isinstance(value, bool):
                return value
            raise BadInput(
                f"{scope.where}.{key}",
                f"must be true or false for the whole model, not {value!r}",
                "correct it",
            )
    return default


def mapped(value: Setting, change: Callable[[float], float]) -> Setting:
    """Apply a linear function to every number of a setting."""
    if isinstance(value, list):
        return [rule | {"value": mapped(rule["value"], change)} for rule in value]
    if isinstance(value, dict):
        return {"gradient": [change(knot) for knot in value["gradient"]]}
    return change(value)


def all_numbers(value: Setting) -> Iterator[float]:
    """Give every number of a setting."""
    if isinstance(value, list):
        for rule in value:
            yield from all_numbers(rule["value"])
    elif isinstance(value, dict):
        yield from value["gradient"]
    else:
        yield value


def holds_gradient(parameters: Parameters | None) -> bool:
    """Tell whether a parameter has a value for each layer."""
    values = list((parameters or {}).values())
    entries = [entry for value in values if isinstance(value, list) for entry in value]
    inner = [entry.get("value") for entry in [*values, *entries] if isinstance(entry, dict)]
    return any(not isinstance(entry, dict) for entry in entries) or any(isinstance(v, list) for v in inner)


def _rules(condition: _Condition) -> list[dict[str, Any]]:
    match = {} if condition.filter is None else {"match": re.escape(condition.filter)}
    if len(condition.values) == 1:
        return [match | {"value": condition.values[0]}]
    holds = f"(?=.*{match['match']})" if match else ""
    return [
        {"match": OUTSIDE + holds, "value": condition.values[0]},
        match | {"value": {"gradient": condition.values}},
    ]


def _conditions(value: Any, where: str) -> list[_Condition]:
    entries = value if isinstance(value, list) else [value]
    if entries and all(isinstance(entry, dict) for entry in entries):
        return [_condition(entry, where) for entry in entries]
    return [_Condition(None, _numbers(value, where))]


def _condition(entry: dict[str, Any], where: str) -> _Condition:
    name = entry.get("filter")
    if not {"value"} <= set(entry) <= {"value", "filter"} or not isinstance(name, str | None):
        raise BadInput(where, f"a condition is {{filter: TEXT, value: x}}, not {entry!r}", "correct it")
    return _Condition(None if name == "*" else name, _numbers(entry["value"], where))


def _numbers(value: Any, where: str) -> list[float]:
    entries = value if isinstance(value, list) else [value]
    try:
        if entries and all(isinstance(entry, int | float | str) for entry in entries):
            return [float(entry) for entry in entries]
    except (ValueError, OverflowError):
        pass
    raise BadInput(
        where,
        f"must be a number, a list of numbers or a list of conditions, not {value!r}",
        "correct it",
    )
