"""The methods as `loreline methods` and the reference show them: what each does, needs and reads."""

from tasks.base.markdown import markdown_table
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


def methods_markdown() -> str:
    """Give every method a row of a Markdown table; what it reads leads to the page of the parameters."""
    return markdown_table(
        ["method", "what it does", "needs", "reads", "paper"],
        [
            [f"`{name}`", method.summary, _needs(method), _links(method), method.reference]
            for name, method in METHODS.items()
        ],
    )


def _links(method: Method) -> str:
    """Link each key to its table: a section's own, or that of the merge section."""
    defaults = MergeParams()
    anchors = {
        key: f"merge{key}" if isinstance(getattr(defaults, key), Section) else "merge"
        for key in method.sections
    }
    return ", ".join(f"[{key}](parameters.md#{anchor})" for key, anchor in anchors.items())


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
