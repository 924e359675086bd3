"""Output heads that are stored beside the embedding they are tied to."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from tasks.base.errors import BadInput
from tasks.base.json_files import read_json
from tasks.checkpoints.configuration import ties_embeddings
from tasks.checkpoints.layout import CONFIG
from tasks.checkpoints.weights import WeightReader
from tasks.merging.roles import is_embedding, is_head

COMPARED_AT_ONCE = 2**22
"""Elements."""


def tied_heads(sources: Sequence[WeightReader]) -> dict[str, str]:
    """Return head → embedding of the heads that a source stores and the newest one's configuration ties."""
    shapes = {name: info.shape for source in sources for name, info in source.tensors.items()}
    tables = [name for name, shape in shapes.items() if is_embedding(name, shape)]
    heads = [name for name, shape in shapes.items() if is_head(name, shape)]
    pairs = {head: table for head in heads for table in tables if shapes[head] == shapes[table]}
    if not pairs or not ties_embeddings(read_json(sources[-1].directory / CONFIG)):
        return {}
    return pairs


def check_tied(sources: Sequence[WeightReader], heads: Mapping[str, str]) -> None:
    """Raise BadInput where a stored head differs from the embedding that it is tied to."""
    for head, table in heads.items():
        for source in sources:
            if head in source.tensors:
                _check_same(source, head, table)


def _check_same(source: WeightReader, head: str, table: str) -> None:
    count = math.prod(source.tensors[head].shape)
    for first in range(0, count, COMPARED_AT_ONCE):  # in parts: embeddings may be larger than the memory left
        some = min(COMPARED_AT_ONCE, count - first)
        if not np.array_equal(source.stored(head, first, some), source.stored(table, first, some)):
            raise BadInput(
                source.label,
                f"{head} differs from {table}, but its configuration ties them",
                "set tie_word_embeddings to false there if they are meant to differ",
            )
