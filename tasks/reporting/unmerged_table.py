"""The runs without a merge, as `loreline history` prints them."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from tasks.base.errors import LONGEST_SENTENCE, one_line

UNMERGED_HEADER = ["when", "run", "state"]


class UnmergedRun(NamedTuple):
    """A training run of which there is no merge."""

    when: float
    """When that became so, in seconds since 1970."""
    run: str
    state: str
    """refused, failed, killed or merging."""
    why: str


def unmerged_table(runs: Sequence[UnmergedRun]) -> str:
    """Render runs without a merge as aligned columns, the whole reason last; empty for none."""
    if not runs:
        return ""
    rows = [UNMERGED_HEADER, *([local_time(run.when), one_line(run.run), run.state] for run in runs)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    whys = ["why", *(one_line(run.why, LONGEST_SENTENCE) for run in runs)]
    return "\n".join(f"{_aligned_left(row, widths)}  {why}" for row, why in zip(rows, whys, strict=True))


def local_time(seconds: float) -> str:
    """Write a time as people here read it."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M")


def _aligned_left(row: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
