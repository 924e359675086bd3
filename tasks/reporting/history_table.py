"""The merged runs as `loreline history` prints them."""

from collections.abc import Sequence

from tasks.base.errors import one_line
from tasks.registry.history import MergedRun
from tasks.reporting.unmerged_table import local_time

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
WIDEST_CELLS = 80
NONE_YET = "no merged run yet"


def history_table(runs: Sequence[MergedRun]) -> str:
    """Render merged runs as aligned columns, in the order given; times are local."""
    if not runs:
        return NONE_YET
    rows = [HISTORY_HEADER, *([one_line(cell, WIDEST_CELLS) for cell in _row(run)] for run in runs)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(_aligned(row, widths) for row in rows)


def _row(run: MergedRun) -> list[str]:
    version = f"{run.model} ({', '.join(run.aliases)})" if run.aliases else run.model
    revision = (run.revision or "-")[:10]
    return [
        local_time(run.when),
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


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = zip(row, widths, strict=True)
    return "  ".join(
        cell.rjust(width) if i in NUMBERS else cell.ljust(width) for i, (cell, width) in enumerate(cells)
    ).rstrip()
