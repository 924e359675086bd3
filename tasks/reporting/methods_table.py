"""The methods as `loreline methods` prints them: what each does, needs and reads."""

from tasks.merging.method import Method
from tasks.merging.methods import METHODS
from tasks.parameters.merge import MergeParams
from tasks.parameters.section import Section

INDENT = " " * 17


def methods_table() -> str:
    """Give every method three lines: what it is, what it needs and reads, its paper."""
    defaults = MergeParams()
    return "\n".join(
        f"{name:16} {method.summary}\n"
        f"{INDENT}needs {_needs(method)}{_keys(method, defaults)}\n"
        f"{INDENT}{method.reference}"
        for name, method in METHODS.items()
    )


def _needs(method: Method) -> str:
    if method.at_most is None:
        count = f"{method.at_least} or more checkpoints"
    else:
        count = f"{method.at_most} checkpoints"
    return f"a base and {count}" if method.base == "required" else count


def _keys(method: Method, defaults: MergeParams) -> str:
    keys = []
    for section in method.sections:
        value = getattr(defaults, section)
        if isinstance(value, Section):
            keys += [f"{section}.{key}={default}" for key, default in value]
        else:
            keys.append(section if value is None else f"{section}={value}")
    return f"; reads {', '.join(keys)}" if keys else ""
