"""Output heads that are stored beside the embedding they are tied to."""

import math
from collections.abc import Sequence

import numpy as np

from tasks.base.errors import BadInput
from tasks.checkpoints.json_files import read_json
from tasks.checkpoints.weights import WeightReader
from tasks.merging.roles import is_embedding, is_head

COMPARED_AT_ONCE = 2**22
"""Elements."""


def stored_twice(inputs: Sequence[WeightReader]) -> set[str]:
    """Return the heads that config.json ties to an embedding and that are not merged a second time.

    Merged separately they could differ, since DARE draws by name. Raises BadInput where they differ already.
    """
    newest = inputs[-1]
    if read_json(newest.directory / "config.json").get("tie_word_embeddings") is not True:
        return set()
    shapes = {name: info.shape for name, info in newest.tensors.items()}
    tables = [name for name, shape in shapes.items() if is_embedding(name, shape)]
    heads = [name for name, shape in shapes.items() if is_head(name, shape)]
    pairs = {head: table for head in heads for table in tables if shapes[head] == shapes[table]}
    for head, table in pairs.items():
        for source in inputs:
            _check_same(source, head, table)
    return set(pairs)


def _check_same(source: WeightReader, head: str, table: str) -> None:
    count = math.prod(source.tensors[head].shape)
    for first in range(0, count, COMPARED_AT_ONCE):  # in parts: embeddings may be larger than the memory left
        some = min(COMPARED_AT_ONCE, count - first)
        if not np.array_equal(source.stored(head, first, some), source.stored(table, first, some)):
            raise BadInput(
                source.label,
                f"{head} differs from {table}, but config.json ties them",
                "set tie_word_embeddings to false there if they are meant to differ",
            )
