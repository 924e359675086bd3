"""How checkpoints deviate from the anchor and from each other, measured block by block."""

from tasks.merging.arrays import double
from tasks.merging.block import Block
from tasks.merging.deviation_sums import Deviation
from tasks.merging.inner_products import dots, pairs, symmetric_matrix


def deviation(block: Block) -> Deviation:
    """Measure one block."""
    raised, lowered = block.deltas[0] > 0, block.deltas[0] < 0
    for delta in block.deltas[1:]:
        raised |= delta > 0
        lowered |= delta < 0
    raised &= lowered
    anchor, conflict = double(block.anchor), double(raised)  # 0 or 1, which is its own square
    deltas = [double(delta) for delta in block.deltas]
    *products, squared, conflicts = dots([*pairs(deltas), (anchor, anchor), (conflict, conflict)])
    rows, columns = block.deltas[0].shape
    return Deviation(symmetric_matrix(products), squared, round(conflicts), rows * columns)
