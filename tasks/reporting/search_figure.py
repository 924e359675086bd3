"""What a search tried, as a picture: each merge's gain over what merge says on the select items."""

from pathlib import Path

from tasks.base.records.search import SearchReport
from tasks.reporting.drawing import save


def draw_search(path: Path, report: SearchReport) -> None:
    """Draw gains, with a standard error each, in the order in which they were tried; mark the best."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    numbers, gains = range(1, len(report.tried) + 1), [tried.gain for tried in report.tried]
    errors = [tried.error for tried in report.tried]
    axes.axhline(0, color="0.6", linewidth=1)
    axes.errorbar(numbers, gains, errors, fmt=".", color="tab:blue", ecolor="0.75")
    best = max(numbers, key=lambda number: gains[number - 1])
    told = "merged" if report.accepted or best == 1 else "best, within a standard error"
    axes.plot(best, gains[best - 1], "*", color="tab:orange", markersize=13, label=told)
    axes.set(
        xlabel="merge tried (1: what merge says)", ylabel=f"gain in {report.metric}",
        title=f"{len(report.tried)} merges on {report.items} select items",
    )  # fmt: skip
    axes.legend(frameon=False)
    save(figure, path)
