"""Finding the same checkpoint under two names, without reading all of both."""

import math
from collections.abc import Callable, Sequence

from tasks.checkpoints.weights import WeightReader

SAMPLE = 64
"""Elements looked at from the start of each tensor."""


def find_duplicates(sources: Sequence[WeightReader], digest: Callable[[int], str]) -> dict[int, int]:
    """Return the positions of checkpoints that repeat an earlier one → that one.

    `digest` gives the digest of the checkpoint at a position; it is asked only where samples agree.
    """
    alike: dict[bytes, list[int]] = {}
    for position, source in enumerate(sources):
        alike.setdefault(_sample(source), []).append(position)
    twins: dict[int, int] = {}
    for group in alike.values():
        first: dict[str, int] = {}
        for position in group if len(group) > 1 else ():
            original = first.setdefault(digest(position), position)
            if original != position:
                twins[position] = original
    return twins


def _sample(source: WeightReader) -> bytes:
    return b"".join(
        source.stored(name, 0, min(SAMPLE, math.prod(info.shape))).tobytes()
        for name, info in sorted(source.tensors.items())
    )
