"""JSON files that others wrote, read without trusting them."""

import json
from pathlib import Path
from typing import Any

from tasks.base.errors import BadInput, brief
from tasks.base.regular_files import NotRegular, open_regular

MAX_JSON = 2**27
"""Bytes of the largest file that is parsed: four times the largest tokenizer, a log of a million steps."""
MOST_NESTED, MOST_ITEMS = 2**22, 2**24
"""Objects and lists, and commas, of such a file: what has more takes gigabytes once it is parsed."""


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; raises BadInput when it is missing, too large, no regular file or no object."""
    try:
        value = json.loads(_read(path))
    except FileNotFoundError:
        raise BadInput(path, "missing", "save or fetch the checkpoint again") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(path, f"not readable as JSON ({brief(error)})", "save or fetch it again") from None
    if not isinstance(value, dict):
        raise BadInput(path, "must hold a JSON object", "save or fetch it again")
    return value


def _read(path: Path) -> bytes:
    try:
        file, size = open_regular(path)
    except NotRegular:
        raise BadInput(path, "not a regular file", "remove it, or save or fetch it again") from None
    with file:
        if size > MAX_JSON:
            raise BadInput(
                path, f"{size} bytes are over the limit of {MAX_JSON}", "save or fetch the checkpoint again"
            )
        raw = file.read()
    if raw.count(b"{") + raw.count(b"[") > MOST_NESTED or raw.count(b",") > MOST_ITEMS:
        raise BadInput(path, "has more entries than any model's", "save or fetch the checkpoint again")
    return raw
