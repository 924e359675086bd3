"""The anchor θ_0, from which task vectors are measured."""

from tasks.merging.arrays import Array
from tasks.merging.block import Block


def base(block: Block) -> Array:
    """Return the model the checkpoints started from."""
    return block.base


def no_anchor(block: Block) -> Array:
    """Return zero: the method averages the weights themselves."""
    return 0.0
