"""Tables in Markdown, numbers with intervals, and text from elsewhere (names of runs, metrics) in them."""

import html
from collections.abc import Sequence

from tasks.base.errors import LONGEST, one_line
from tasks.base.records.record import Interval


def in_markdown(text: str, longest: int = LONGEST) -> str:
    """Return a text as one line in which no HTML, link, code or cell of a table opens."""
    shown = one_line(text, longest).replace("`", "'").replace("|", "\\|").replace("](", "]\\(")
    return html.escape(shown, quote=False)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Render rows of text as Markdown."""
    return "\n".join(_markdown_row(row) for row in [header, ["---"] * len(header), *rows])


def interval_text(interval: Interval) -> str:
    """Write an estimate with its interval."""
    return f"{interval.mean:.3g} [{interval.low:.3g}, {interval.high:.3g}]"


def gain_text(gain: Interval) -> str:
    """Write a gain with its interval, and the signs."""
    return f"{gain.mean:+.3g} [{gain.low:+.3g}, {gain.high:+.3g}]"


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
