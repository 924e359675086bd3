"""DARE's random masks: one random stream for each tensor of each checkpoint (arXiv 2311.03099)."""

import hashlib
from typing import Any

import numpy as np

from tasks.merging import arrays
from tasks.merging.arrays import Array
from tasks.merging.block import Block
from tasks.parameters.merge import DareParams, value_for


def drop(delta: Array, dare: DareParams, block: Block, checkpoint: int) -> Array:
    """Set elements to zero with probability p and multiply the others by 1/(1 − p)."""
    p = value_for(dare.p, checkpoint)
    if p == 0:
        return delta
    mask = survivors(dare, block.tensor, checkpoint, block.start, np.prod(delta.shape, dtype=int))
    kept = delta * arrays.like(mask.reshape(tuple(delta.shape)), delta)
    kept /= 1 - p
    return kept


def survivors(
    dare: DareParams, tensor: str, checkpoint: int, start: int, size: int
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return which of the `size` elements from flat position `start` are kept.

    Element f takes the f-th 32 bits of the tensor's stream, so that blocks of any size agree; the raw output
    of a bit generator, unlike what numpy derives from it, never changes between releases (NEP 19).
    """
    stream = _stream(f"{dare.seed}/{checkpoint}/{tensor}")
    stream.advance(start // 2)  # each output has 64 bits, two elements
    skipped = start % 2
    words = stream.random_raw((skipped + size + 1) // 2).astype("<u8", copy=False).view("<u4")
    kept: np.ndarray[Any, np.dtype[np.bool_]] = words[skipped:][:size] >= round(
        value_for(dare.p, checkpoint) * 2**32
    )
    return kept


def _stream(name: str) -> np.random.PCG64DXSM:
    """Return the generator whose whole state is the name's digest."""
    digest = hashlib.sha256(name.encode()).digest()
    state, increment = int.from_bytes(digest[:16]), int.from_bytes(digest[16:]) | 1  # odd: the full period
    stream = np.random.PCG64DXSM(0)
    stream.state = {
        "bit_generator": "PCG64DXSM",
        "state": {"state": state, "inc": increment},
        "has_uint32": 0,
        "uinteger": 0,
    }
    return stream
