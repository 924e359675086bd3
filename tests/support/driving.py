"""Run a program's measurements on blocks in memory."""

from collections.abc import Generator, Mapping, Sequence
from typing import Any

from tasks.merging.block import Block


def drive(program: Generator[Any, Any, Any], blocks: Mapping[str, Sequence[Block]]) -> tuple[Any, list[Any]]:
    """Return what the program returns, and what its measurements sent."""
    sent: list[Any] = []
    try:
        measure = next(program)
        while True:
            sent.append({name: [measure(block) for block in parts] for name, parts in blocks.items()})
            measure = program.send(sent[-1])
    except StopIteration as stop:
        return stop.value, sent
