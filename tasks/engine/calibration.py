"""The text that checkpoints are measured on."""

import json
from collections.abc import Sequence
from pathlib import Path

from tasks.base.errors import BadInput, brief
from tasks.base.passage import Passage
from tasks.base.regular_files import open_regular
from tasks.merging.methods import METHODS
from tasks.parameters.merge import MergeParams

CALIBRATION = "calibration.jsonl"
"""The file in artifacts/search with the select items' text."""


def wants_items(params: MergeParams) -> bool:
    """Tell whether the method measures the checkpoints on the select items, no file being named."""
    return METHODS[params.method].measures is not None and params.calibration.file is None


def read_texts(params: MergeParams, items: Path | None = None) -> tuple[Passage, ...]:
    """Return the texts that the method measures on; none where it does not measure.

    `items`: where the select items' text lies. Raises BadInput where there is no text.
    """
    if METHODS[params.method].measures is None:
        return ()
    named = params.calibration.file
    path = Path(named) if named else items
    if path is None or (named is None and not path.exists()):
        run = "" if path is None else "run loreline search, which writes that of evaluate.select_tasks, or "
        raise BadInput(
            "merge.calibration.file",
            f"{params.method} measures every checkpoint on text, and there is none",
            f"{run}name a file with one document a line",
        )
    texts = _documents(path)
    if not texts:
        raise BadInput(path, "holds no text", "name a file with one document a line")
    count = min(params.calibration.items, len(texts))
    return tuple(texts[i * len(texts) // count] for i in range(count))


def write_texts(texts: Sequence[Passage], path: Path) -> None:
    """Write texts as JSON lines, which `read_texts` reads."""
    path.write_text("".join(json.dumps(own._asdict()) + "\n" for own in texts), encoding="utf-8")


def _documents(path: Path) -> list[Passage]:
    try:
        file, _ = open_regular(path)
        with file:
            lines = file.read().decode("utf-8").replace("\r\n", "\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(path, f"cannot be read as text ({brief(error)})", "name a file in UTF-8") from None
    texts = [_passage(path, number, line) for number, line in enumerate(lines, 1)]
    return [own for own in texts if own.text.strip()]


def _passage(path: Path, number: int, line: str) -> Passage:
    """Return a line's document: of JSON lines the key text, and the key prompt where there is one."""
    if path.suffix not in (".jsonl", ".json"):
        return Passage("", line)
    try:
        row = json.loads(line) if line.strip() else {"text": ""}
        found = Passage(row.get("prompt", ""), row["text"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        found = None
    if found is None or not all(isinstance(part, str) for part in found):
        raise BadInput(path, f"line {number} is no JSON object with a text", 'write {"text": "..."}')
    return found
