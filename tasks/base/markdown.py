"""Text from elsewhere (names of tensors, runs, metrics) on a Markdown page."""

import html

from tasks.base.errors import LONGEST, one_line


def in_markdown(text: str, longest: int = LONGEST) -> str:
    """Return a text as one line in which no HTML, link, code or cell of a table opens."""
    shown = one_line(text, longest).replace("`", "'").replace("|", "\\|").replace("](", "]\\(")
    return html.escape(shown, quote=False)
