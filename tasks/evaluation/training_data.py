"""Test items that the run was trained on, as far as its data files are named."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from glob import glob
from typing import Any

from tasks.base.errors import BadInput
from tasks.evaluation.lm_eval_task import build_task, quiet
from tasks.evaluation.task_spec import Split, leaves_of

SHORT = 3
"""Characters up to which a text tells nothing by itself, such as the letter of an answer."""


def trained_on(split: Split, patterns: Sequence[str]) -> dict[str, int]:
    """Return how many documents of each task occur in these files of JSON lines, where some do.

    A document occurs in a row that holds all its texts, under whatever names. Raises BadInput for a file that
    is not there or holds no JSON lines.
    """
    if not patterns:
        return {}
    rows = _by_longest_text(_rows(patterns))
    with quiet(()):
        found = {
            task.name: sum(_occurs(document, rows) for document in build_task(task, split.params).eval_docs)
            for task in leaves_of(split.tasks)
        }
    return {name: count for name, count in found.items() if count}


def _occurs(document: Mapping[str, Any], rows: Mapping[str, Sequence[frozenset[str]]]) -> bool:
    texts = _texts(document)
    return bool(texts) and any(texts <= row for row in rows.get(max(texts, key=_rank), ()))


def _by_longest_text(rows: Iterable[Any]) -> dict[str, list[frozenset[str]]]:
    """File each row under every text that could be the longest of a document in it."""
    filed: dict[str, list[frozenset[str]]] = defaultdict(list)
    for row in rows:
        texts = _texts(row)
        for text in texts:
            filed[text].append(texts)
    return filed


def _rank(text: str) -> tuple[int, str]:
    return len(text), text


def _texts(value: Any) -> frozenset[str]:
    """Return the texts in a document or row, at any depth, without what surrounds them."""
    if isinstance(value, str):
        text = value.strip()
        return frozenset([text]) if len(text) > SHORT else frozenset()
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return frozenset().union(*map(_texts, inner))


def _rows(patterns: Sequence[str]) -> Iterator[Any]:
    for pattern in patterns:
        paths = sorted(glob(pattern, recursive=True))  # noqa: PTH207 (patterns may be absolute)
        if not paths:
            raise BadInput("evaluate.training_data", f"there is no {pattern}", "correct it, or leave it out")
        for path in paths:
            try:
                with open(path, encoding="utf-8") as lines:  # noqa: PTH123
                    yield from (json.loads(line) for line in lines if line.strip())
            except (OSError, ValueError, RecursionError):
                raise BadInput(
                    "evaluate.training_data", f"{path} holds no JSON lines", "name files with one row a line"
                ) from None
