"""Items that are set apart: a share of a task's documents, chosen by their content."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from tasks.base.json_digest import digest_of
from tasks.evaluation.task_spec import ItemPart, TaskSpec


def part_of(task: TaskSpec, part: ItemPart) -> TaskSpec:
    """Return a task, or a group's tasks, reduced to a part of their documents."""
    members = tuple(part_of(member, part) for member in task.members)
    return replace(task, part=part, members=members, digest=digest_of([task.digest, part]))


def places_in(documents: Iterable[Mapping[str, Any]], part: ItemPart, cluster: str | None) -> list[int]:
    """Return the positions of a part's documents; those of one cluster stay together.

    Equal documents fall on one side, in every data set and in any order.
    """
    contents = (document[cluster] if cluster else document for document in documents)
    in_vault, edge = part.kind == "vault", part.share * 16**13  # 52 bits, which a float holds
    return [
        place for place, content in enumerate(contents) if (int(_key(content)[:13], 16) < edge) == in_vault
    ]


def document_keys(documents: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield what tells a document from others: a digest of its content."""
    return map(_key, documents)


def _key(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
