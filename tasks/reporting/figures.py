"""Figures of a run: its trajectory, and the merge's gains."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.base.records.evaluation import Evaluation
from tasks.base.records.record import Interval
from tasks.base.records.selection import Selection
from tasks.base.records.training_run import Checkpoint
from tasks.base.records.verdict import Guard
from tasks.reporting.drawing import in_figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_trajectory(path: Path, checkpoints: Sequence[Checkpoint], selection: Selection) -> None:
    """Draw the selection metric along the run, with the merged and the best checkpoints marked."""
    from matplotlib.figure import Figure

    logged = [c for c in checkpoints if selection.metric in c.metrics]
    merged = {(c.run, c.step) for c in selection.chosen}
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    for run in dict.fromkeys(c.run for c in logged) or [""]:
        own = _points([c for c in logged if c.run == run], selection.metric)
        colour, label = (None, in_figure(run)) if run else ("0.6", "checkpoints")
        axes.plot(*own, color=colour, linewidth=1, marker=".", label=label)
    chosen = [c for c in logged if (c.run, c.step) in merged]
    axes.plot(*_points(chosen, selection.metric), "o", color="tab:blue", label="merged")
    if selection.best is not None:
        best = _points([selection.best], selection.metric)
        axes.plot(*best, "*", color="tab:orange", markersize=13, label="best single")
    axes.set(
        xlabel="training step",
        ylabel=in_figure(selection.metric),
        title=f"Trajectory of {in_figure(selection.run)}",
    )
    axes.legend(frameon=False)
    save(figure, path)


def draw_gains(path: Path, evaluation: Evaluation) -> None:
    """Draw the merge's gain over each model on the deciding metric, and below it what the other metrics show.

    The gains have 95 % intervals and the bar that they must clear (dotted). Other metrics are in units of
    their margins, with bounds at 5 % one-sided.
    """
    from matplotlib.figure import Figure

    labels = {model.role: in_figure(model.label) for model in evaluation.models}
    gains = [
        (f"over {labels[each.against]}\n({each.wins} won, {each.losses} lost)", each.gain)
        for each in evaluation.differences
        if each.metric == evaluation.primary
    ]
    guarded = [
        bound for guard in evaluation.verdict.guards for bound in _in_margins(guard, labels[guard.against])
    ]
    heights = [0.8 + 0.5 * len(rows) for rows in (gains, guarded) if rows]
    figure = Figure(figsize=(7, sum(heights)), layout="constrained")
    panels = figure.subplots(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    reason = evaluation.verdict.reason
    _draw_rows(panels[0], gains, f"gain of the merge in {in_figure(evaluation.primary)} (right is better)")
    panels[0].axvline(reason.min_gain if reason else 0, color="0.3", linewidth=1, linestyle=":")
    if guarded:
        _draw_rows(panels[1], guarded, "gain in units of the margin (dashed)")
        panels[1].axvline(-1, color="tab:red", linewidth=1, linestyle="--")
    save(figure, path)


def _in_margins(guard: Guard, label: str) -> list[tuple[str, Interval]]:
    """Return the guarded metrics, and all of them together, in units of their margins."""
    rows = [
        (
            in_figure(each.metric),
            Interval(mean=gain.mean / margin, low=gain.low / margin, high=gain.high / margin),
        )
        for each in guard.metrics
        for gain, margin in [(each.gain, each.margin)]
        if margin > 0
    ]
    together = [("all together", guard.pooled)] if guard.pooled and len(rows) > 1 else []
    return [(f"{name}\nagainst {label}", gain) for name, gain in rows + together]


def _draw_rows(axes: "Axes", rows: Sequence[tuple[str, Interval]], xlabel: str) -> None:
    """Draw an interval a row, the first on top, and a line at zero."""
    for row, (_, gain) in enumerate(reversed(rows)):
        errors = [[gain.mean - gain.low], [gain.high - gain.mean]]
        axes.errorbar([gain.mean], [row], xerr=errors, fmt="o", color="tab:blue", capsize=4)
    axes.axvline(0, color="0.6", linewidth=1)
    axes.set_yticks(range(len(rows)), [name for name, _ in reversed(rows)], fontsize="small")
    axes.set(xlabel=xlabel, ylim=(-0.6, len(rows) - 0.4))


def _points(checkpoints: Sequence[Checkpoint], metric: str) -> tuple[list[int], list[float]]:
    return [c.step for c in checkpoints], [c.metrics[metric] for c in checkpoints]
