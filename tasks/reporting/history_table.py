"""The merged runs, and those without a merge, as `loreline history` prints them."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from tasks.base.errors import LONGEST_SENTENCE, one_line
from tasks.registry.history import MergedRun

HISTORY_HEADER = [
    "when",
    "run",
    "method",
    "verdict",
    "metric",
    "merge",
    "against",
    "version",
    "tag",
    "revision",
]
NUMBERS = {HISTORY_HEADER.index("merge")}
UNMERGED_HEADER = ["when", "run", "state"]
WIDEST_CELLS = 80
NONE_YET = "no merged run yet"


def history_table(runs: Sequence[MergedRun]) -> str:
    """Render merged runs as aligned columns, in the order given; times are local."""
    if not runs:
        return NONE_YET
    rows = [HISTORY_HEADER, *([one_line(cell, WIDEST_CELLS) for cell in _row(run)] for run in runs)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(_aligned(row, widths) for row in rows)


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
    rows = [UNMERGED_HEADER, *([_time(run.when), one_line(run.run), run.state] for run in runs)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    whys = ["why", *(one_line(run.why, LONGEST_SENTENCE) for run in runs)]
    return "\n".join(f"{_aligned_left(row, widths)}  {why}" for row, why in zip(rows, whys, strict=True))


def _row(run: MergedRun) -> list[str]:
    version = f"{run.model} ({', '.join(run.aliases)})" if run.aliases else run.model
    revision = (run.revision or "-")[:10]
    return [
        _time(run.when),
        run.run or "-",
        run.method or "-",
        run.verdict or "-",
        run.primary or "-",
        _number(run.merge),
        f"{_number(run.weighed)} ({run.against})" if run.against else "-",
        version,
        "pruned" if run.pruned else run.tag or "-",
        f"{revision}, push pending" if run.push == "pending" else revision,
    ]


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = zip(row, widths, strict=True)
    return "  ".join(
        cell.rjust(width) if i in NUMBERS else cell.ljust(width) for i, (cell, width) in enumerate(cells)
    ).rstrip()


def _aligned_left(row: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
