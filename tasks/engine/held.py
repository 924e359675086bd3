"""Blocks that stay in memory between the rounds of a method, so that they are read once."""

from threading import Lock

from tasks.engine.cut import Piece
from tasks.merging.block import Block


class Held:
    """Holds blocks up to so many bytes: those that come first, because all come again in the same order."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._blocks: dict[Piece, tuple[Block, int]] = {}
        self._bytes = 0
        self._lock = Lock()

    def take(self, piece: Piece) -> Block | None:
        """Return a block that is held, and hold it no longer."""
        with self._lock:
            block, size = self._blocks.pop(piece, (None, 0))
            self._bytes -= size
        return block

    def keep(self, piece: Piece, block: Block, size: int) -> None:
        """Hold a block that takes so many bytes, where there is room for it."""
        with self._lock:
            if self._bytes + size <= self._limit:
                self._blocks[piece] = block, size
                self._bytes += size
